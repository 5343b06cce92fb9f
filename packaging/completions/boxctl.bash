# bash completion for boxctl. What may come next is said by boxctl itself, live names of boxes among it: a script that is
# older than the program cannot be wrong.
_boxctl() {
    local line files=
    COMPREPLY=()
    while IFS= read -r line; do
        case $line in
            :files) files=-f ;;
            :folders) files=-d ;;
            *) COMPREPLY+=("${line%%$'\t'*}") ;;
        esac
    done < <("$1" complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    # What ends so is not at its end yet.
    case ${COMPREPLY[0]-} in
        *=|*.) compopt -o nospace 2>/dev/null ;;
    esac
    if [ -n "$files" ]; then
        compopt -o filenames 2>/dev/null
        while IFS= read -r line; do
            COMPREPLY+=("$line")
        done < <(compgen "$files" -- "${COMP_WORDS[COMP_CWORD]}")
    fi
}
complete -F _boxctl boxctl
