//! Frames that RFC 6455 forbids, or allows and few send: the close code of each, and neighbours that notice nothing.

use crate::support::frames::{
    CLOSE, CONTINUATION, PING, PONG, RawSocket, TEXT, close_payload, frame, frame_with, header_of, part,
};
use crate::support::{Broker, Peer};

const GOOD: &[u8] = br#"{"channel":"Sales","topic":"Call","subtopic":"Ring","id":"good"}"#;
const MIB: u64 = 1 << 20;

/// A broker with a neighbour that nothing may disturb.
async fn stage() -> (Broker, Peer) {
    let broker = Broker::start().await;
    let mut neighbour = broker.app("neighbour").await;
    neighbour.subscribe("*/*/*").await;
    (broker, neighbour)
}

/// Each sequence of bytes, sent on a connection of its own, is answered by a Close frame with this code, whose reason
/// names the rule or limit.
async fn check(code: u16, cases: Vec<(&str, Vec<u8>, &str)>) {
    let (broker, mut neighbour) = stage().await;
    for (name, bytes, rule) in cases {
        let mut socket = RawSocket::registered(&broker, "crooked").await;
        socket.write(&bytes).await;
        let close = socket.read_message().await.expect("a Close frame");
        assert_eq!(close.close_code(), Some(code), "{name}");
        assert!(close.close_reason().contains(rule), "{name}: '{rule}' is not in '{}'", close.close_reason());
    }
    neighbour.expect_nothing().await;
}

/// The header of a masked text frame, with this in the place of its length.
fn header_with(len: &[u8]) -> Vec<u8> {
    [&[0x80 | TEXT], len, &[0; 4]].concat()
}

#[tokio::test]
async fn forbidden_frames_are_1002() {
    let pieces = |pieces: &[Vec<u8>]| pieces.concat();
    check(
        1002,
        vec![
            ("a frame without mask", frame_with(0x80 | TEXT, false, GOOD), "masks its frames"),
            ("an unmasked ping", frame_with(0x80 | PING, false, b""), "masks its frames"),
            ("RSV1", frame_with(0xC0 | TEXT, true, GOOD), "a reserved bit"),
            ("RSV2", frame_with(0xA0 | TEXT, true, GOOD), "a reserved bit"),
            ("RSV3", frame_with(0x90 | TEXT, true, GOOD), "a reserved bit"),
            ("a reserved data opcode", frame(0x3, GOOD), "the opcode"),
            ("another reserved data opcode", frame(0x7, GOOD), "the opcode"),
            ("a reserved control opcode", frame(0xB, b""), "the opcode"),
            ("another reserved control opcode", frame(0xF, b""), "the opcode"),
            ("a continuation of nothing", frame(CONTINUATION, GOOD), "no message to continue"),
            ("a message inside a message", pieces(&[part(TEXT, b"{"), frame(TEXT, GOOD)]), "is not complete"),
            ("a ping in pieces", part(PING, b"x"), "is not fragmented"),
            ("a ping of 126 bytes", frame(PING, &[b'x'; 126]), "at most 125 bytes"),
            ("a Close of 126 bytes", frame(CLOSE, &close_payload(1000, &[b'x'; 124])), "at most 125 bytes"),
            ("125 bytes whose length is in two", header_with(&[0xFE, 0, 125]), "fewest bytes"),
            ("0 bytes whose length is in two", header_with(&[0xFE, 0, 0]), "fewest bytes"),
            ("125 bytes whose length is in eight", header_with(&[0xFF, 0, 0, 0, 0, 0, 0, 0, 125]), "fewest bytes"),
            (
                "65,535 bytes whose length is in eight",
                header_with(&[0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]),
                "fewest bytes",
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn bad_close_frames_are_1002() {
    let codes = [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535];
    let case = |code: &u16| ("a code that may not be sent", frame(CLOSE, &close_payload(*code, b"")), "status code");
    let mut cases: Vec<_> = codes.iter().map(case).collect();
    cases.push(("half a code", frame(CLOSE, &[3]), "no payload, or a status code"));
    check(1002, cases).await;
}

#[tokio::test]
async fn good_close_frames_are_echoed() {
    let (broker, mut neighbour) = stage().await;
    // 1014 is younger than RFC 6455 (IANA, WebSocket Close Code Number Registry).
    for code in [1000, 1001, 1011, 1014, 3000, 4999] {
        let mut socket = RawSocket::registered(&broker, "polite").await;
        socket.write(&frame(CLOSE, &close_payload(code, b"bye"))).await;
        assert_eq!(socket.close_code().await, code);
        assert_eq!(socket.read().await, None, "after the Close the broker ends the connection");
    }
    let mut socket = RawSocket::registered(&broker, "polite").await;
    socket.write(&frame(CLOSE, b"")).await;
    assert_eq!(socket.read_message().await.unwrap().opcode, CLOSE);
    neighbour.expect_nothing().await;
}

#[tokio::test]
async fn invalid_utf8_is_1007() {
    check(
        1007,
        vec![
            ("a byte that never occurs in UTF-8", frame(TEXT, b"{\"channel\":\"\xFF\"}"), "UTF-8"),
            ("a sequence cut short", frame(TEXT, b"{\"channel\":\"\xE2\x98"), "UTF-8"),
            ("a surrogate", frame(TEXT, b"{\"channel\":\"\xED\xA0\x80\"}"), "UTF-8"),
            ("an overlong slash", frame(TEXT, b"{\"channel\":\"\xC0\xAF\"}"), "UTF-8"),
            ("beyond U+10FFFF", frame(TEXT, b"{\"channel\":\"\xF4\x90\x80\x80\"}"), "UTF-8"),
            ("in a later piece", [part(TEXT, b"{\"channel\":\""), frame(CONTINUATION, b"\xFF\"}")].concat(), "UTF-8"),
            ("in the reason of a Close", frame(CLOSE, &close_payload(1000, b"\xFF")), "UTF-8"),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_message_over_the_limit_is_1009_on_its_header() {
    let half = vec![b' '; 600 * 1024];
    check(
        1009,
        vec![
            ("one byte over", header_of(MIB + 1), "1048576 bytes"),
            ("a terabyte", header_of(1 << 40), "1048576 bytes"),
            ("in two pieces", [part(TEXT, &half), frame(CONTINUATION, &half)].concat(), "1048576 bytes"),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_message_over_16_kib_before_registration_is_1009() {
    let (broker, mut neighbour) = stage().await;
    let mut socket = RawSocket::connect(&broker).await;
    socket.write(&header_of(16 * 1024 + 1)).await;
    let close = socket.read_message().await.unwrap();
    assert_eq!(close.close_code(), Some(1009));
    assert_eq!(close.close_reason(), "a message before registration has at most 16384 bytes");
    // Just under it, a Register may be long.
    let mut register = br#"{"channel":"Broker","topic":"Application","subtopic":"Register","source":"a"}"#.to_vec();
    register.resize(16 * 1024, b' ');
    let mut socket = RawSocket::connect(&broker).await;
    socket.write(&frame(TEXT, &register)).await;
    assert!(socket.read_message().await.unwrap().text().contains("\"Success\":true"));
    // And once registered, a message may have a mebibyte.
    let mut event = GOOD.to_vec();
    event.resize(usize::try_from(MIB).unwrap(), b' ');
    socket.write(&frame(TEXT, &event)).await;
    assert!(socket.read_message().await.unwrap().text().contains("\"Receivers\":1"));
    assert_eq!(neighbour.next().await["id"], "good");
    neighbour.expect_nothing().await;
}

#[tokio::test]
async fn a_message_in_pieces_with_pings_between_is_one_message() {
    let (broker, mut neighbour) = stage().await;
    let mut socket = RawSocket::registered(&broker, "slicer").await;
    let (first, rest) = GOOD.split_at(11);
    let (second, third) = rest.split_at(7);
    socket.write(&part(TEXT, first)).await;
    socket.write(&frame(PING, b"still there?")).await;
    let pong = socket.read_message().await.unwrap();
    assert_eq!((pong.opcode, pong.payload.as_slice()), (PONG, b"still there?".as_slice()));
    socket.write(&[part(CONTINUATION, second), frame(PONG, b""), part(CONTINUATION, b"")].concat()).await;
    socket.write(&frame(CONTINUATION, third)).await;
    assert!(socket.read_message().await.unwrap().text().contains("\"Receivers\":1"));
    assert_eq!(neighbour.next().await["id"], "good");
}

#[tokio::test]
async fn a_message_in_pieces_of_one_byte_with_pings_between_is_one_message() {
    let (broker, mut neighbour) = stage().await;
    let mut socket = RawSocket::registered(&broker, "slicer").await;
    let (last, first) = GOOD.split_last().unwrap();
    for (at, byte) in first.iter().enumerate() {
        socket.write(&[part(if at == 0 { TEXT } else { CONTINUATION }, &[*byte]), frame(PING, b"")].concat()).await;
        assert_eq!(socket.read_message().await.unwrap().opcode, PONG);
    }
    // Nothing is answered before the last piece.
    socket.write(&frame(CONTINUATION, &[*last])).await;
    assert!(socket.read_message().await.unwrap().text().contains("\"Receivers\":1"));
    assert_eq!(neighbour.next().await["id"], "good");
}

#[tokio::test]
async fn a_message_that_comes_byte_by_byte_is_one_message() {
    let (broker, mut neighbour) = stage().await;
    let mut socket = RawSocket::registered(&broker, "modem").await;
    for byte in frame(TEXT, GOOD) {
        socket.write(&[byte]).await;
    }
    assert!(socket.read_message().await.unwrap().text().contains("\"Receivers\":1"));
    assert_eq!(neighbour.next().await["id"], "good");
}

#[tokio::test]
async fn many_messages_in_one_segment_are_all_read() {
    let (broker, mut neighbour) = stage().await;
    let mut socket = RawSocket::registered(&broker, "burst").await;
    socket.write(&frame(TEXT, GOOD).repeat(50)).await;
    for _ in 0..50 {
        assert!(socket.read_message().await.unwrap().text().contains("\"Receivers\":1"));
        assert_eq!(neighbour.next().await["id"], "good");
    }
}

#[tokio::test]
async fn a_whole_message_over_the_limit_is_answered_with_1009() {
    let (broker, mut neighbour) = stage().await;
    let mut socket = RawSocket::registered(&broker, "big").await;
    // All of it is sent before anything is read: a reset must not overtake the Close frame.
    socket.write(&frame(TEXT, &vec![b'x'; 3 << 20])).await;
    socket.write(&frame(TEXT, GOOD)).await;
    assert_eq!(socket.close_code().await, 1009);
    neighbour.expect_nothing().await;
}

#[tokio::test]
async fn the_message_limit_is_the_configured_one_and_is_told_at_registration() {
    let broker =
        Broker::open_with("[limits]\nmessage_bytes = 2000\nregistration_bytes = 500\nheartbeat = \"7s\"").await;
    let mut peer = broker.raw("peer").await;
    let reply = peer.register("peer", serde_json::json!({})).await;
    assert_eq!((&reply["data"]["MaxMessageBytes"], &reply["data"]["HeartbeatSeconds"]), (&2000.into(), &7.into()));
    let mut text = String::from_utf8(GOOD.to_vec()).unwrap();
    text.push_str(&" ".repeat(2000 - GOOD.len()));
    peer.send_text(&text).await;
    assert_eq!(peer.next_receipt("good").await, 0);
    peer.send_text(&format!("{text} ")).await;
    assert_eq!(peer.closed().await, 1009);
    let mut socket = RawSocket::connect(&broker).await;
    socket.write(&frame(TEXT, &[b' '; 501])).await;
    assert_eq!(socket.close_code().await, 1009);
}
