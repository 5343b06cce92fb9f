//! What is written where, and what is said of it.

use std::collections::BTreeMap;
use std::fs;

use super::*;
use crate::generation::{Cause, Generation};

const BASE: &str = "command = ['/bin/true']\n[resources]\nmemory = '1G'\n";

struct Host {
    root: tempfile::TempDir,
    layers: Layers,
    name: Name,
}

impl Host {
    fn new() -> Host {
        let root = tempfile::tempdir().expect("a folder");
        let layers = Layers::under(root.path());
        let name = "web".parse().expect("a name");
        let host = Host { root, layers, name };
        host.put("etc/boxd/web.toml", BASE);
        host
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn get(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root.path().join(path)).ok()
    }

    /// What is said, with the folder left out.
    fn set(&self, runtime: bool, texts: &[&str]) -> Result<String, Error> {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        let settings = settings(&self.name, &texts)?;
        let work = Work {
            drop_ins: DropIns::of(&self.name, &self.layers, runtime),
            name: &self.name,
            settings: &settings,
            manager: None,
        };
        let before = definition::texts(&self.name, &self.layers)?;
        let after = work.changed(&before)?;
        parse(&self.name, &after).map_err(LoadError::from)?;
        work.check_order(&after)?;
        write(work.drafts(&before, &after)?)?;
        assert_eq!(definition::texts(&self.name, &self.layers)?, after);
        let told = work.told(&before, &after, &Reached::Rests);
        Ok(told.replace(&self.root.path().display().to_string(), ""))
    }

    fn refused(&self, runtime: bool, texts: &[&str]) -> String {
        match self.set(runtime, texts) {
            Err(error) => describe(
                &error,
                Look {
                    color: false,
                    width: None,
                },
            )
            .replace(&self.root.path().display().to_string(), ""),
            Ok(said) => panic!("{texts:?}: {said}"),
        }
    }
}

const HOLDS: &str = "etc/boxd/web.toml.d/90-set.toml";
const PASSES: &str = "run/boxd/definitions/web.toml.d/95-set-runtime.toml";

#[test]
fn the_last_word_counts_and_can_be_taken_back() {
    let host = Host::new();
    assert_eq!(
        host.set(false, &["memory=2G", "restart.policy=always"])
            .expect("set"),
        "Box web is changed for its next start:\n  resources.memory: \"1G\" -> \"2G\"\n  \
         restart.policy: not written -> \"always\"\n/etc/boxd/web.toml.d/90-set.toml is written.\n"
    );
    assert_eq!(
        host.get(HOLDS).expect("written"),
        "# Written by `boxctl set web`.\n[resources]\nmemory = \"2G\"\n\n[restart]\npolicy = \"always\"\n"
    );
    host.set(true, &["memory=3G", "cpu=2"]).expect("set");
    let memory = || {
        let definition = definition::load(&host.name, &host.layers).expect("a definition");
        definition.resources.memory.map(|bytes| bytes >> 30)
    };
    assert_eq!(memory(), Some(3), "of both the one at run time");
    host.set(false, &["memory=4G"]).expect("set");
    assert_eq!(memory(), Some(4), "said later");
    assert_eq!(
        host.get(PASSES).expect("written"),
        "# Written by `boxctl set web`.\n[resources]\ncpu = 2\n"
    );
    host.set(true, &["cpu="]).expect("set");
    assert!(
        !host
            .root
            .path()
            .join("run/boxd/definitions/web.toml.d")
            .exists(),
        "nothing is left in it"
    );
    let said = host.set(false, &["resources.memory=", "restart.policy="]);
    let said = said.expect("set");
    assert!(
        said.ends_with(
            "90-set.toml is removed.\nresources.memory is set in /etc/boxd/web.toml:3.\n"
        ),
        "{said}"
    );
    assert_eq!((memory(), host.get(HOLDS)), (Some(1), None));
    assert_eq!(
        host.set(false, &["cpu="]).expect("nothing to do"),
        "Box web is as it was.\n"
    );
}

#[test]
fn what_cannot_be_is_refused_and_nothing_is_written() {
    let host = Host::new();
    for (texts, words) in [
        (&["memory"][..], "\"memory\" is no setting: it is KEY=VALUE"),
        (&["=1G"], "is no setting"),
        (&["memory=lots"], "90-set.toml:3:10"),
        (&["cpu=fast"], "`resources.cpu` is a string"),
        (&["tasks=-1", "cpu=2"], "`resources.tasks` cannot be -1"),
        (&["io-read.vda=1M"], "expected an absolute path"),
        (
            &["memry=1G"],
            "there is no key \"memry\"; did you mean resources.memory?",
        ),
        (&["MemoryMax=1G"], "did you mean resources.memory?"),
        (&["policy=no"], "did you mean restart.policy?"),
        (
            &["hostname=x"],
            "hostname cannot be changed while a box runs",
        ),
        (&["health.interval=5s"], "boxctl edit --drop-in web"),
        (&["cpu=1", "resources.cpu=2"], "resources.cpu is set twice"),
        (&["health.tcp=nowhere"], "health.tcp"),
    ] {
        let said = host.refused(false, texts);
        assert!(said.contains(words), "{texts:?}: {said}");
        assert!(!host.root.path().join("etc/boxd/web.toml.d").exists());
    }
    host.put(
        "usr/lib/boxd/web.toml.d/99-late.toml",
        "resources.memory = '5G'\n",
    );
    let said = host.refused(false, &["cpu=1", "memory=2G"]);
    assert!(
        said.contains("by /etc/boxd/web.toml.d/90-set.toml: /usr/lib/boxd/web.toml.d/99-late.toml comes after it"),
        "{said}"
    );
    host.put(
        "etc/boxd/web.toml.d/95-set-runtime.toml",
        "description = 'x'\n",
    );
    let said = host.refused(true, &["cpu=1"]);
    assert!(
        said.contains("/etc/boxd/web.toml.d/95-set-runtime.toml"),
        "{said}"
    );
    assert_eq!((host.get(HOLDS), host.get(PASSES)), (None, None));
}

#[test]
fn what_an_operator_wrote_into_the_drop_in_stays() {
    let host = Host::new();
    host.put(HOLDS, "# Mine.\nresources = { cpu = 1 }\n");
    host.set(false, &["cpu=2", "description=Shop \"front\""])
        .expect("set");
    assert_eq!(
        host.get(HOLDS).expect("written"),
        "# Mine.\nresources = { cpu = 2 }\ndescription = 'Shop \"front\"'\n"
    );
    // The second of two files cannot be written: the first is as before.
    host.put(PASSES, "resources.cpu = 3\nbroken\n");
    let before = host.get(HOLDS);
    host.refused(false, &["cpu=4"]);
    host.put(PASSES, "resources.cpu = 3\n");
    let drafts = vec![
        Written {
            path: host.root.path().join(HOLDS),
            before: before.clone(),
            draft: Some(Draft::of(&host.root.path().join(HOLDS), "x").expect("a draft")),
        },
        Written {
            path: host.root.path().join("nowhere"),
            before: None,
            draft: None,
        },
    ];
    assert!(write(drafts).is_err());
    assert_eq!(host.get(HOLDS), before);
}

#[test]
fn nothing_is_set_while_a_generation_is_half_applied() {
    let host = Host::new();
    let store = Store::at(&host.root.path().join("generations"));
    let refused = || refuse_half_applied(&host.name, &store).err();
    let lock = store.lock().expect("locked");
    assert!(refused().is_none(), "there is none");
    let mut generation = Generation {
        number: 0,
        time: 1,
        boot: None,
        author: "root".to_owned(),
        cause: Cause::Files,
        state: State::Applying,
        changed: BTreeMap::new(),
        failures: BTreeMap::new(),
        to_do: BTreeMap::new(),
    };
    generation = store
        .write(&lock, generation, &BTreeMap::new())
        .expect("written");
    assert_eq!(
        refused().map(|error| error.to_string()).as_deref(),
        Some(
            "cannot set anything of box web: generation 1 is half applied; `boxctl apply` finishes it"
        )
    );
    generation.state = State::Applied;
    store.rewrite(&lock, &generation).expect("written");
    assert!(refused().is_none());
}

#[test]
fn words_of_keys_lead_to_keys() {
    let keys = keys();
    let words = words();
    assert!(words.iter().any(|(word, _)| word == "memory="));
    assert!(words.iter().any(|(word, _)| word == "io-read."));
    for (word, _) in words {
        let text = format!("{}x", word.trim_end_matches('='));
        let known = key(&keys, word.trim_end_matches('=')).or_else(|_| key(&keys, &text));
        assert!(known.is_ok(), "{word}");
    }
}
