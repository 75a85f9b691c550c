use super::*;

#[test]
fn a_batch_goes_through_the_pipe_as_it_came() {
    let sent = ToWorker::Sign {
        first_seq: 1 << 40,
        generation: 3,
        not_after_unix_ms: -1,
        key: "recovery".parse().unwrap(),
        items: vec![Item { kind: Kind::Command, octets: vec![7; 4000].into() }; 3]
            .into_iter()
            .chain([Item { kind: Kind::Checkpoint, octets: Cow::Borrowed(&[]) }])
            .collect(),
    };
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    write_message(&mut ours, &sent, &mut Vec::new()).unwrap();
    let mut buffer = Vec::new();
    let frame = read_frame(&mut theirs, &mut buffer).unwrap().to_vec();
    let received: ToWorker<'_> = decode(&frame).unwrap();
    assert_eq!(format!("{received:?}"), format!("{sent:?}"));
}

impl Clone for Item<'_> {
    fn clone(&self) -> Self {
        Self { kind: self.kind, octets: self.octets.clone() }
    }
}

#[test]
fn a_frame_of_the_greatest_length_is_read_and_one_octet_more_is_refused_before_it_is_stored() {
    let framed = |len: usize| {
        let mut octets = u32::try_from(len).unwrap().to_be_bytes().to_vec();
        octets.resize(4 + len, 1);
        octets
    };
    let mut buffer = Vec::new();
    assert_eq!(read_frame(&mut &framed(FRAME_LEN_MAX)[..], &mut buffer).unwrap().len(), FRAME_LEN_MAX);
    let mut buffer = Vec::new();
    let error = read_frame(&mut &framed(FRAME_LEN_MAX + 1)[..], &mut buffer).unwrap_err();
    assert!(matches!(error, FrameError::TooLong { len } if len == FRAME_LEN_MAX + 1));
    assert_eq!(buffer.capacity(), 0);
    assert!(matches!(write_raw(&mut Vec::new(), &vec![0; FRAME_LEN_MAX + 1]), Err(FrameError::TooLong { .. })));
}

#[test]
fn a_cut_frame_is_closed_a_silent_one_is_silent_and_a_surplus_octet_is_malformed() {
    let mut octets = Vec::new();
    write_message(&mut octets, &ToWorker::Fence { generation: 5 }, &mut Vec::new()).unwrap();
    for len in 0..octets.len() {
        assert!(matches!(read_frame(&mut &octets[..len], &mut Vec::new()), Err(FrameError::Closed)), "{len}");
    }
    assert!(matches!(decode::<ToWorker<'_>>(&octets[4..]), Ok(ToWorker::Fence { generation: 5 })));
    octets.push(0);
    assert!(matches!(decode::<ToWorker<'_>>(&octets[4..]), Err(FrameError::Malformed(_))));

    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.set_read_timeout(Some(std::time::Duration::from_millis(5))).unwrap();
    assert!(matches!(read_frame(&mut theirs, &mut Vec::new()), Err(FrameError::Silent)));
    drop(ours);
}

#[test]
fn the_mark_is_shared_by_both_sides() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mark = rustix::fs::memfd_create("mark", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    send_mark(&ours, &mark).unwrap();
    let received = receive_mark(&theirs).unwrap();
    assert_eq!(read_mark(&mark), Some(0), "nothing was begun");
    raise_mark(&received, 6).unwrap();
    assert_eq!(read_mark(&mark), Some(7));

    assert!(noted_signatures(&mark, 2).is_empty());
    note_signature(&received, (1, 0), 5, (&[5; 32], &[6; 32]), 40);
    note_signature(&received, (0, GROUP_LEN_MAX - 1), 0, (&[1; 32], &[1; 32]), 30);
    note_signature(&received, (1, 0), 6, (&[7; 32], &[8; 32]), 70);
    let noted: Vec<(u64, u8, u8)> =
        noted_signatures(&mark, 2).into_iter().map(|(seq, signature)| (seq, signature[31], signature[32])).collect();
    assert_eq!(noted, [(0, 1, 1), (6, 7, 8)], "the last at each place");
    assert_eq!(noted_signatures(&mark, 1).len(), 1, "one signer");
    assert_eq!(read_mark(&mark), Some(7), "the mark lies before them");
    assert_eq!(noted_busy(&mark, 2), 30 + 70, "each signer's last");
    assert_eq!(noted_busy(&mark, 1), 30, "one signer");

    (&ours).write_all(b"M").unwrap();
    assert!(receive_mark(&theirs).is_err(), "an octet without a descriptor");
}
