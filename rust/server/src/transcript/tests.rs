use super::*;
use orchqueue_wire::reader::Cut;

fn batch(pieces: &[(&str, Channel)]) -> TokenBatch {
    let mut batch = TokenBatch::default();
    for (text, channel) in pieces {
        batch.text.push_str(text);
        batch.cuts.push(Cut {
            end: u32::try_from(batch.text.len()).unwrap(),
            channel: *channel,
        });
    }
    batch
}

fn ended() -> Terminal {
    Terminal::End(Arc::new(serde_json::json!({})))
}

fn id_at(pieces: &[(&str, Channel)]) -> EventId {
    let t = Transcript::new([7; 32]);
    t.append(&mut Place::default(), &batch(pieces));
    let state = t.state.lock();
    EventId {
        k: state.digest.k(),
        hex16: first8(&state.digest.read()),
        end: false,
    }
}

#[test]
fn nothing_comes_after_the_terminal() {
    let t = Transcript::new([7; 32]);
    assert_eq!(
        t.append(&mut Place::default(), &batch(&[("a", Channel::Text)])),
        Appended::Taken
    );
    assert!(t.end(ended()));
    assert_eq!(
        t.append(&mut Place::default(), &batch(&[("b", Channel::Text)])),
        Appended::Ended
    );
    assert!(!t.end(ended()));
    assert_eq!(t.segments(), [(Channel::Text, "a".to_owned())]);
}

#[test]
fn a_channel_switch_counts_two_output_bytes() {
    let t = Transcript::new([7; 32]);
    t.append(
        &mut Place::default(),
        &batch(&[("why", Channel::Reasoning), ("ok", Channel::Text)]),
    );
    assert_eq!(t.k(), 2 + 3 + 2 + 2);
}

#[test]
fn every_place_of_the_output_can_be_resumed_and_no_other_digest_can() {
    let t = Transcript::new([7; 32]);
    t.append(
        &mut Place::default(),
        &batch(&[
            ("abc", Channel::Text),
            ("dé", Channel::Text),
            ("f", Channel::Reasoning),
        ]),
    );
    for (seen, place) in [
        ("", (0, 0)),
        ("a", (0, 1)),
        ("abc", (1, 0)),
        ("abcd", (1, 1)),
        ("abcdé", (2, 0)),
    ] {
        let id = id_at(&[(seen, Channel::Text)]);
        assert_eq!(
            t.locate(id),
            Ok(Cursor {
                event: place.0,
                skip: place.1
            }),
            "after {seen:?}"
        );
        let wrong = EventId {
            hex16: id.hex16 ^ 1,
            ..id
        };
        assert_eq!(t.locate(wrong), Err(ResumeError::Mismatch));
    }
    let longer = EventId {
        k: 100,
        hex16: 0,
        end: false,
    };
    assert_eq!(t.locate(longer), Err(ResumeError::NotYet));
    t.end(ended());
    assert_eq!(t.locate(longer), Err(ResumeError::Mismatch));
}

#[test]
fn a_place_inside_a_character_is_refused() {
    let t = Transcript::new([7; 32]);
    t.append(&mut Place::default(), &batch(&[("é", Channel::Text)]));
    assert_eq!(
        t.locate(EventId {
            k: 1,
            hex16: 0,
            end: false
        }),
        Err(ResumeError::Mismatch)
    );
}

const SENT: [(&str, Channel); 3] = [
    ("why", Channel::Reasoning),
    ("dé", Channel::Text),
    ("f", Channel::Text),
];

/// A transcript in which a first attempt died after `SENT`, and a second attempt that produces `pieces`.
fn second_attempt(pieces: &[(&str, Channel)]) -> (Transcript, Appended) {
    let t = Transcript::new([7; 32]);
    t.append(&mut Place::default(), &batch(&SENT));
    let mut place = Place::default();
    let mut result = Appended::Taken;
    for piece in pieces {
        result = t.append(&mut place, &batch(std::slice::from_ref(piece)));
        if result != Appended::Taken {
            break;
        }
    }
    (t, result)
}

#[test]
fn a_second_attempt_goes_on_however_its_events_are_cut() {
    let whole = Transcript::new([7; 32]);
    whole.append(&mut Place::default(), &batch(&SENT));
    whole.append(
        &mut Place { text: 7, event: 3 },
        &batch(&[("gh", Channel::Text)]),
    );
    for pieces in [
        vec![
            ("why", Channel::Reasoning),
            ("dé", Channel::Text),
            ("f", Channel::Text),
            ("gh", Channel::Text),
        ],
        vec![("why", Channel::Reasoning), ("défgh", Channel::Text)],
        vec![
            ("w", Channel::Reasoning),
            ("hy", Channel::Reasoning),
            ("d", Channel::Text),
            ("éfg", Channel::Text),
            ("h", Channel::Text),
        ],
    ] {
        let (t, result) = second_attempt(&pieces);
        assert_eq!(result, Appended::Taken);
        assert_eq!(t.segments(), whole.segments());
        assert_eq!(t.k(), whole.k());
    }
}

#[test]
fn the_first_differing_byte_is_named_and_nothing_is_appended() {
    for (pieces, at) in [
        (vec![("wha", Channel::Reasoning)], 2 + 2),
        (vec![("why", Channel::Text)], 2),
        (
            vec![("why", Channel::Reasoning), ("de", Channel::Text)],
            2 + 3 + 2 + 1,
        ),
        (
            vec![("why", Channel::Reasoning), ("déX", Channel::Text)],
            2 + 3 + 2 + 3,
        ),
    ] {
        let (t, result) = second_attempt(&pieces);
        assert_eq!(result, Appended::Diverged { k: at }, "{pieces:?}");
        assert_eq!(t.k(), 2 + 3 + 2 + 4);
    }
}
