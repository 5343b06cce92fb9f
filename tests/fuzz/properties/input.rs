//! How bytes become the parts of an input.

/// The texts between bytes 0xFF, which no UTF-8 has; what else is no UTF-8 is replaced.
pub fn texts(data: &[u8]) -> Vec<String> {
    data.split(|byte| *byte == 0xFF)
        .map(|part| String::from_utf8_lossy(part).into_owned())
        .collect()
}

/// A text as a string of TOML.
pub fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            _ if character.is_control() => quoted += &format!("\\u{:04x}", u32::from(character)),
            _ => quoted.push(character),
        }
    }
    quoted + "\""
}

/// Asserts that a sentence for people is one: something, in which nothing is that a terminal obeys.
pub fn assert_plain(sentence: &str) {
    assert!(!sentence.trim().is_empty(), "nothing is said");
    let obeyed = |character: char| character.is_control() && character != '\n';
    assert!(!sentence.contains(obeyed), "{sentence:?}");
}

/// Decisions out of bytes; zero when they are used up.
pub struct Choices<'a>(pub &'a [u8]);

impl Choices<'_> {
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// Less than `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (usize::from(self.byte()) << 8 | usize::from(self.byte())) % end
    }

    pub fn of<T: Copy>(&mut self, options: &[T]) -> T {
        options[usize::from(self.byte()) % options.len()]
    }

    /// A number whose halves are often such at which comparisons go wrong.
    pub fn number(&mut self) -> u64 {
        let mut half = || match self.byte() % 8 {
            0..=2 => 0,
            3 => 1,
            4 => u64::from(u32::MAX),
            5 => 0x8000_0000,
            6 => u64::from(self.byte()),
            _ => (0..4).fold(0, |number, _| number << 8 | u64::from(self.byte())),
        };
        half() << 32 | half()
    }
}
