use super::*;

fn only(op: &StoreOp) -> Change {
    let mut changes = Vec::new();
    encode(op, &mut changes);
    assert_eq!(changes.len(), 1);
    changes.remove(0)
}

#[test]
fn a_text_that_is_too_long_for_a_key_comes_back() {
    for len in [0, 1, TEXT_IN_KEY, TEXT_IN_KEY + 1, 65_535] {
        let filter = "x".repeat(len);
        let put = StoreOp::PutSubscription {
            session: SessionId(7),
            filter: filter.clone(),
            options: SubscriptionOptions::default(),
            id: Some(3),
        };
        let change = only(&put);
        assert!(change.key.len() <= usize::from(u16::MAX));
        assert_eq!(decode(&change.key, &change.value.clone().unwrap()), Ok(Some(put)));
        let delete = StoreOp::DeleteSubscription { session: SessionId(7), filter };
        assert_eq!(only(&delete).key, change.key);
    }
}

#[test]
fn a_replay_of_the_first_version_is_read() {
    let old = |after: u64, until: u64| {
        let key = text_key(tag::REPLAY, Some(SessionId(7)), "a/#");
        let Change { key, value } = Value::new(17).u64(after).u64(until).rest_of("a/#").under(key);
        match decode(&key, &value.unwrap()) {
            Ok(Some(StoreOp::PutReplay { session: SessionId(7), filter, replay })) => (filter, *replay),
            other => panic!("{other:?}"),
        }
    };
    let left = StoredReplay { after: MessageId(3), until: vec![MessageId(9)], except: Vec::new() };
    assert_eq!(old(3, 9), ("a/#".to_owned(), left));
    assert_eq!(old(3, u64::MAX), ("a/#".to_owned(), StoredReplay::default()), "with several shards");
    let put = StoreOp::PutGroup(SessionId(1), "$share/g/t".into());
    let Change { key, value } = only(&put);
    let value = Value::of_version(2, 0).raw(&value.unwrap()[1..]).under(key.clone()).value.unwrap();
    assert_eq!(decode(&key, &value), Err(Corrupt), "others have one version");
}

#[test]
fn any_flipped_bit_and_any_cut_is_noticed() {
    let put = StoreOp::PutExchange {
        session: SessionId(1),
        entry: EntryId(2),
        packet_id: PacketId::MIN,
        number: 3,
        stage: StoredStage::Released,
    };
    let Change { key, value } = only(&put);
    let value = value.unwrap();
    for bit in 0..value.len() * 8 {
        let mut bad = value.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(decode(&key, &bad), Err(Corrupt), "bit {bit}");
    }
    for bit in 0..key.len() * 8 {
        let mut bad = key.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(decode(&bad, &value), Err(Corrupt), "bit {bit}");
    }
    for len in 0..value.len() {
        assert_eq!(decode(&key, &value[..len]), Err(Corrupt), "{len} bytes");
    }
}

#[test]
fn a_mark_comes_back_with_its_secret_in_its_place() {
    let mark = Mark { secret: [9; 16], batch: 5, synced: 4, sequence: 9 };
    let Change { key, value } = mark.encode();
    let value = value.unwrap();
    assert_eq!(Mark::decode(&key, &value), Ok(mark));
    assert_eq!(value[SECRET_AT..SECRET_AT + 16], mark.secret);
}
