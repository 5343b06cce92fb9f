# fish completion for boxctl. What may come next is said by boxctl itself, live names of boxes among it.
function __boxctl_complete
    set -l words (commandline -opc)
    set -e words[1]
    set -l current (commandline -ct)
    for line in (boxctl complete -- $words "$current" 2>/dev/null)
        switch $line
            case :files
                __fish_complete_path "$current"
            case :folders
                __fish_complete_directories "$current" ''
            case '*'
                echo $line
        end
    end
end
complete -c boxctl -f -a '(__boxctl_complete)'
