//! Entries as journald reads them, <https://systemd.io/JOURNAL_NATIVE_PROTOCOL>.

/// A field by its name.
pub type Field<'a> = (&'a [u8], &'a [u8]);

/// The fields of one entry. What journald would pass over is an error.
pub fn fields(mut entry: &[u8]) -> Vec<Field<'_>> {
    let mut fields = Vec::new();
    while !entry.is_empty() {
        let end = entry
            .iter()
            .position(|byte| *byte == b'\n')
            .expect("a line ends");
        let line = &entry[..end];
        entry = &entry[end + 1..];
        let (name, value) = match line.iter().position(|byte| *byte == b'=') {
            Some(equals) => (&line[..equals], &line[equals + 1..]),
            None => {
                let (length, rest) = entry.split_first_chunk::<8>().expect("a length");
                let (value, rest) = rest.split_at(u64::from_le_bytes(*length) as usize);
                entry = rest.strip_prefix(b"\n").expect("a line ends");
                (line, value)
            }
        };
        let good = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_';
        assert!(
            (1..=64).contains(&name.len()) && name.iter().all(good) && name[0].is_ascii_uppercase()
        );
        fields.push((name, value));
    }
    fields
}
