//! What a box answers to a probe: however it comes in parts, the same is understood of it.

use boxd::probe::http::{ANSWER_MAX, Answer, BODY_MAX, Malformed, answer};

/// Where the answer is cut, in two bytes, and the answer.
pub fn http(data: &[u8]) {
    let Some((cut, bytes)) = data.split_first_chunk::<2>() else {
        return;
    };
    let bytes = &bytes[..bytes.len().min(ANSWER_MAX)];
    let cut = usize::from(u16::from_le_bytes(*cut)) % (bytes.len() + 1);

    let ended = answer(bytes, true);
    let whole = answer(bytes, false);
    let before = answer(&bytes[..cut], false);
    match &ended {
        Ok(None) => panic!("what has ended is an answer or none"),
        Ok(Some(answer)) => {
            assert!(answer.complete);
            bounded(answer, bytes);
        }
        Err(error) => super::input::assert_plain(&error.to_string()),
    }
    match (&whole, &ended) {
        (Ok(None), Err(Malformed::Short)) => {}
        (Ok(Some(whole)), Ok(Some(ended))) => {
            let complete = ended.complete;
            let whole = Answer {
                complete,
                ..whole.clone()
            };
            assert_eq!(whole, *ended);
        }
        (Err(Malformed::Head), Err(Malformed::Short)) => {}
        (Err(whole), Err(ended)) => assert_eq!(whole, ended),
        other => panic!("{other:?}"),
    }
    match (&before, &whole) {
        (Ok(None), _) => {}
        // What was wrong stays wrong.
        (Err(before), whole) => assert_eq!(Err(*before), *whole),
        (Ok(Some(before)), Ok(Some(whole))) => {
            assert_eq!(
                (before.status, &before.reason),
                (whole.status, &whole.reason)
            );
            assert!(whole.body.starts_with(&before.body));
            if before.complete {
                assert_eq!(before, whole);
            }
        }
        (Ok(Some(before)), Err(Malformed::Length)) => assert!(!before.complete),
        other => panic!("{other:?}"),
    }
}

fn bounded(answer: &Answer, bytes: &[u8]) {
    assert!((100..1000).contains(&answer.status));
    assert!(answer.body.len() <= BODY_MAX.min(bytes.len()));
    assert!(answer.reason.len() <= bytes.len());
}
