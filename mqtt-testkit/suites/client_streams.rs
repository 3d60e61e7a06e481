//! Streams of messages that the client gives, part of its suite.

use super::*;

#[rt::test]
async fn a_full_stream_stops_nothing_and_yields_lagged() -> Result {
    let (mut server, options) = server();
    let (client, mut link) = connected(&mut server, options.stream_capacity(10)).await?;
    let mut stream = subscribe(&client, &mut link, "a").await;
    for n in 0..1000 {
        link.publish("a", &n.to_string(), QoS::AtMostOnce, 0).await;
    }
    link.settle(&client).await;
    for n in 0..10 {
        assert_eq!(next(&mut stream).await, n.to_string());
    }
    assert_eq!(next(&mut stream).await, "lagged 990");
    link.publish("a", "on", QoS::AtMostOnce, 0).await;
    assert_eq!(next(&mut stream).await, "on");
    Ok(())
}

#[rt::test]
async fn what_comes_at_once_for_several_streams_reaches_each_whole_and_in_order() -> Result {
    let (client, mut link) = pair().await?;
    let mut one = subscribe(&client, &mut link, "one/+").await;
    let mut both = subscribe(&client, &mut link, "+/both").await;
    let large = "x".repeat(5000);
    // In one piece, so that one read brings it.
    let mut bytes = Vec::new();
    let mut wanted = [const { Vec::new() }; 2];
    for n in 0..40u16 {
        let (topic, first, second) =
            [("one/a", true, false), ("one/both", true, true), ("b/both", false, true)][usize::from(n % 3)];
        let payload = if n % 7 == 6 { format!("{n} {large}") } else { n.to_string() };
        let packet_id = PacketId::new(n).filter(|_| n % 4 == 3);
        let qos = if packet_id.is_some() { QoS::AtLeastOnce } else { QoS::AtMostOnce };
        let publish =
            PublishRef { topic, qos, packet_id, payload: payload.as_bytes(), ..PublishRef::default() };
        PacketRef::Publish(publish).encode(link.version, &mut bytes)?;
        for (wanted, gets_it) in wanted.iter_mut().zip([first, second]) {
            wanted.extend(gets_it.then(|| (topic, payload.clone())));
        }
    }
    let [wanted_one, wanted_both] = &wanted;
    let receive = async {
        for (stream, wanted) in [(&mut one, wanted_one), (&mut both, wanted_both)] {
            for (topic, payload) in wanted {
                let Some(Item::Message(message)) = stream.recv().await else { panic!("no message") };
                assert_eq!((&*message.topic, &message.payload[..]), (*topic, payload.as_bytes()));
            }
        }
    };
    zip(link.stream.write_all(&bytes), receive).await.0?;
    for id in (3..40).step_by(4) {
        link.expect(&format!("PUBACK #{id}")).await;
    }
    Ok(())
}

#[rt::test]
async fn above_qos_0_nothing_is_dropped_and_receiving_acknowledges() -> Result {
    let (mut server, options) = server();
    let (client, mut link) = connected(&mut server, options.stream_capacity(1)).await?;
    let mut stream = subscribe(&client, &mut link, "a").await;
    for id in 1..=5 {
        link.publish("a", &id.to_string(), QoS::AtLeastOnce, id).await;
    }
    link.settle(&client).await;
    for id in 1..=5 {
        assert_eq!(next(&mut stream).await, id.to_string());
        link.expect(&format!("PUBACK #{id}")).await;
    }
    Ok(())
}

#[rt::test]
async fn the_receive_maximum_bounds_what_is_unacknowledged() -> Result {
    let (mut server, options) = server();
    let options = options.configure(|config| config.receive_maximum = 3);
    let (client, mut link) = connected(&mut server, options).await?;
    let _stream = subscribe(&client, &mut link, "a").await;
    for id in 1..=4 {
        link.publish("a", "", QoS::AtLeastOnce, id).await;
    }
    link.expect("DISCONNECT 93").await;
    Ok(())
}

#[rt::test]
async fn below_5_a_limit_closes_with_a_reason() -> Result {
    let (mut server, options) = server();
    server.version = Version::V311;
    let options = options.version(Version::V311).clean_start(CleanStart::Always).configure(|config| {
        config.max_unacknowledged = 3;
        config.receive_maximum = 1;
    });
    let (client, mut link) = connected(&mut server, options).await?;
    let _stream = subscribe(&client, &mut link, "a").await;
    let mut state = client.state();
    for id in 1..=4 {
        link.publish("a", "", QoS::AtLeastOnce, id).await;
    }
    let wait = state
        .wait_for(|state| matches!(state, State::Disconnected { cause: Cause::TooManyUnacknowledged, .. }));
    wait.await?;
    Ok(())
}

#[rt::test]
async fn publishing_from_a_receive_loop_cannot_deadlock() -> Result {
    let (mut server, options) = server_with(256);
    let options = options.stream_capacity(1).configure(|config| {
        config.max_queued_messages = 1;
        config.max_in_flight = 1;
    });
    let (client, mut link) = connected(&mut server, options).await?;
    let mut stream = subscribe(&client, &mut link, "in").await;
    let echo = async {
        for _ in 0..50 {
            let text = next(&mut stream).await;
            client.publish(at_least_once("out", &text)).await.unwrap();
        }
    };
    let serve = async {
        let (mut given, mut echoed) = (0u16, 0u16);
        while echoed < 50 {
            if given < 50 && given < echoed + 5 {
                given += 1;
                link.publish("in", &given.to_string(), QoS::AtLeastOnce, given).await;
                continue;
            }
            let line = link.next().await;
            if let Some(rest) = line.strip_prefix("PUBLISH out q1 #") {
                echoed += 1;
                link.puback(rest.split(' ').next().unwrap().parse().unwrap()).await;
            }
        }
    };
    zip(echo, serve).await;
    Ok(())
}

#[rt::test]
async fn a_message_goes_once_to_every_stream_that_matches() -> Result {
    let (client, mut link) = pair().await?;
    let mut one = subscribe(&client, &mut link, "a/+").await;
    let mut two = subscribe(&client, &mut link, "a/#").await;
    let mut other = subscribe(&client, &mut link, "b").await;
    link.publish("a/x", "1", QoS::AtLeastOnce, 1).await;
    link.publish("a/x/y", "2", QoS::AtMostOnce, 0).await;
    link.settle(&client).await;
    assert_eq!(next(&mut one).await, "1");
    // Both have it now, so it is acknowledged.
    assert_eq!(next(&mut two).await, "1");
    link.expect("PUBACK #1").await;
    assert_eq!(next(&mut two).await, "2");
    assert!(one.try_recv().is_none() && other.try_recv().is_none());
    Ok(())
}

#[rt::test]
async fn what_matches_no_stream_is_unclaimed_and_kept_from_the_start() -> Result {
    let (client, mut link) = pair().await?;
    link.publish("old", "1", QoS::AtMostOnce, 0).await;
    link.publish("old", "2", QoS::AtLeastOnce, 1).await;
    link.settle(&client).await;
    let mut unclaimed = client.unclaimed().expect("nobody has it");
    assert!(client.unclaimed().is_none());
    assert_eq!(next(&mut unclaimed).await, "1");
    assert_eq!(next(&mut unclaimed).await, "2");
    link.expect("PUBACK #1").await;
    drop(unclaimed);
    assert!(client.unclaimed().is_some());
    Ok(())
}

#[rt::test]
async fn the_backlog_of_unclaimed_messages_is_bounded_and_fills_no_window() -> Result {
    let (mut server, options) = server();
    let (client, mut link) = connected(&mut server, options.unclaimed_capacity(2)).await?;
    for id in 1..=5 {
        link.publish("old", &id.to_string(), QoS::AtLeastOnce, id).await;
    }
    link.settle(&client).await;
    let mut unclaimed = client.unclaimed().expect("nobody has it");
    assert_eq!(next(&mut unclaimed).await, "1");
    assert_eq!(next(&mut unclaimed).await, "2");
    assert_eq!(next(&mut unclaimed).await, "lagged 3");
    for id in 1..=5 {
        link.expect(&format!("PUBACK #{id}")).await;
    }
    Ok(())
}

#[rt::test]
async fn dropping_a_stream_neither_unsubscribes_nor_acknowledges() -> Result {
    let (client, mut link) = pair().await?;
    let stream = subscribe(&client, &mut link, "a").await;
    link.publish("a", "1", QoS::AtLeastOnce, 1).await;
    link.settle(&client).await;
    drop(stream);
    link.publish("a", "2", QoS::AtLeastOnce, 2).await;
    // Neither UNSUBSCRIBE nor PUBACK comes before the next publish.
    link.settle(&client).await;
    let mut unclaimed = client.unclaimed().expect("nobody has it");
    assert_eq!(next(&mut unclaimed).await, "1");
    assert_eq!(next(&mut unclaimed).await, "2");
    Ok(())
}

#[rt::test]
async fn unsubscribe_unsubscribes_and_acknowledges() -> Result {
    let (client, mut link) = pair().await?;
    let stream = subscribe(&client, &mut link, "a").await;
    let twin = subscribe(&client, &mut link, "a").await;
    link.publish("a", "1", QoS::AtLeastOnce, 1).await;
    link.settle(&client).await;
    // The other stream has the same filter: it stays subscribed.
    twin.unsubscribe().await?;
    link.settle(&client).await;
    let serve = async {
        link.expect("UNSUBSCRIBE #5 a").await;
        link.unsuback(5).await;
        link.expect("PUBACK #1").await;
    };
    let (result, ()) = zip(stream.unsubscribe(), serve).await;
    result?;
    Ok(())
}

#[rt::test]
async fn messages_before_suback_are_not_missed() -> Result {
    let (client, mut link) = pair().await?;
    let serve = async {
        link.expect("SUBSCRIBE #1 a q1").await;
        link.publish("a", "retained", QoS::AtMostOnce, 0).await;
        link.suback(1, &[1]).await;
    };
    let (stream, ()) = zip(client.subscribe("a", QoS::AtLeastOnce), serve).await;
    assert_eq!(next(&mut stream?).await, "retained");
    Ok(())
}

#[rt::test]
async fn a_refused_subscription_is_an_error() -> Result {
    let (client, mut link) = pair().await?;
    let serve = async {
        link.next().await;
        link.suback(1, &[0x87]).await;
    };
    let (stream, ()) = zip(client.subscribe("a", QoS::AtLeastOnce), serve).await;
    assert!(matches!(stream, Err(Error::Refused(ReasonCode::NotAuthorized))));
    let bad = client.subscribe("a#", QoS::AtLeastOnce).await;
    assert!(matches!(bad, Err(Error::Request(_))));
    Ok(())
}

#[rt::test]
async fn manual_acknowledgements_may_come_in_any_order() -> Result {
    let (mut server, options) = server();
    let (client, mut link) = connected(&mut server, options.manual_ack()).await?;
    let mut stream = subscribe(&client, &mut link, "a").await;
    link.publish("a", "1", QoS::AtLeastOnce, 1).await;
    link.publish("a", "2", QoS::AtLeastOnce, 2).await;
    let (Some(Item::Message(first)), Some(Item::Message(second))) =
        (stream.recv().await, stream.recv().await)
    else {
        panic!()
    };
    second.refuse(ReasonCode::QuotaExceeded);
    link.settle(&client).await;
    assert_eq!(&first.ack().payload[..], b"1");
    link.expect("PUBACK #1").await;
    link.expect("PUBACK #2 97").await;
    Ok(())
}

#[rt::test]
async fn subscriptions_outlive_connections_and_lost_sessions() -> Result {
    rt::pause();
    let (mut server, options) = server();
    let (client, mut link) = connected(&mut server, options).await?;
    let mut stream = subscribe(&client, &mut link, "a").await;
    drop(link);
    let mut link = server.accept().await;
    link.expect("SUBSCRIBE #2 a q1").await;
    link.suback(2, &[1]).await;
    link.publish("a", "again", QoS::AtMostOnce, 0).await;
    assert_eq!(next(&mut stream).await, "again");
    drop(link);
    let mut link = server.accept().await;
    link.next().await;
    link.suback(3, &[0x87]).await;
    let Some(Item::Refused { filter, reason }) = stream.recv().await else { panic!() };
    assert_eq!((&filter[..], reason), ("a", ReasonCode::NotAuthorized));
    Ok(())
}
