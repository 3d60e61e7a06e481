//! Frames: payloads pass through as they come, masked or not as the role wants it.

use super::WebSocketError;
use std::io::{Cursor, IoSlice};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// The longest header of a frame.
const MAX_HEADER: usize = 14;
/// The longest payload of a control frame.
const MAX_CONTROL: u64 = 125;

/// What is not data.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item {
    Ping(Vec<u8>),
    /// With the code, if there was one.
    Close(Option<u16>),
}

/// Both directions of one connection.
pub(super) struct Frames {
    is_server: bool,
    /// Bytes of a header that has not come whole.
    header: [u8; MAX_HEADER],
    header_len: usize,
    frame: Option<Frame>,
    /// Bytes of the fragmented message that is under way.
    message: Option<u64>,
    max_message: u64,
    masks: Masks,
}

/// A frame whose payload has not come whole.
struct Frame {
    left: u64,
    mask: Option<[u8; 4]>,
    /// How much of the payload came, as far as the mask is concerned.
    at: usize,
    control: Option<(Control, Vec<u8>)>,
}

impl Frames {
    pub(super) const fn server(max_message: u64) -> Self {
        Self::new(true, max_message)
    }

    pub(super) const fn client(max_message: u64) -> Self {
        Self::new(false, max_message)
    }

    const fn new(is_server: bool, max_message: u64) -> Self {
        Self {
            is_server,
            header: [0; MAX_HEADER],
            header_len: 0,
            frame: None,
            message: None,
            max_message,
            masks: Masks { random: [[0; 4]; MASKS], left: 0 },
        }
    }

    /// Takes of `input` up to the end of one frame. Data goes to `data`.
    pub(super) fn take(
        &mut self,
        input: &mut &[u8],
        data: &mut Vec<u8>,
    ) -> Result<Option<Item>, WebSocketError> {
        let frame = match &mut self.frame {
            Some(frame) => frame,
            None => match self.take_header(input)? {
                Some(frame) => self.frame.insert(frame),
                None => return Ok(None),
            },
        };
        let n = usize::try_from(frame.left).unwrap_or(usize::MAX).min(input.len());
        let (payload, rest) = input.split_at_checked(n).unwrap_or((input, &[]));
        let into = match &mut frame.control {
            Some((_, payload)) => payload,
            None => data,
        };
        let start = into.len();
        into.extend_from_slice(payload);
        if let Some(mask) = frame.mask {
            unmask(into.get_mut(start..).unwrap_or_default(), mask, frame.at);
        }
        frame.at = (frame.at + n) % 4;
        frame.left -= n as u64;
        *input = rest;
        if frame.left > 0 {
            return Ok(None);
        }
        match self.frame.take().and_then(|frame| frame.control) {
            Some((Control::Ping, payload)) => Ok(Some(Item::Ping(payload))),
            Some((Control::Close, payload)) => close_code(&payload).map(|code| Some(Item::Close(code))),
            _ => Ok(None),
        }
    }

    /// Takes a header, as far as it is there.
    fn take_header(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, WebSocketError> {
        let before = self.header_len;
        let place = self.header.get_mut(before..).unwrap_or_default();
        let n = place.len().min(input.len());
        place.iter_mut().zip(*input).for_each(|(to, from)| *to = *from);
        let known = self.header.get(..before + n).unwrap_or_default();
        let mut cursor = Cursor::new(known);
        let parsed =
            FrameHeader::parse(&mut cursor).map_err(|_| WebSocketError::Frame("a reserved opcode"))?;
        let Some((header, len)) = parsed else {
            self.header_len = before + n;
            *input = input.get(n..).unwrap_or_default();
            return Ok(None);
        };
        let used = usize::try_from(cursor.position()).unwrap_or(0);
        *input = input.get(used.saturating_sub(before)..).unwrap_or_default();
        self.header_len = 0;
        self.check(&header, len, used)?;
        let control = match header.opcode {
            OpCode::Control(control) => Some((control, Vec::new())),
            OpCode::Data(_) => None,
        };
        Ok(Some(Frame { left: len, mask: header.mask, at: 0, control }))
    }

    /// Whether a frame may come now.
    fn check(&mut self, header: &FrameHeader, len: u64, used: usize) -> Result<(), WebSocketError> {
        let wrong = |what| Err(WebSocketError::Frame(what));
        match () {
            () if header.rsv1 || header.rsv2 || header.rsv3 => return wrong("a reserved bit is set"),
            () if header.mask.is_none() && self.is_server => return wrong("a frame without a mask"),
            () if header.mask.is_some() && !self.is_server => return wrong("a frame with a mask"),
            () if header.len(len) != used => return wrong("a length in more bytes than it needs"),
            () => {}
        }
        match header.opcode {
            OpCode::Control(_) if !header.is_final => wrong("a control frame in fragments"),
            OpCode::Control(_) if len > MAX_CONTROL => wrong("a control frame of more than 125 bytes"),
            OpCode::Control(_) => Ok(()),
            OpCode::Data(Data::Text) => Err(WebSocketError::Text),
            OpCode::Data(kind) => {
                let so_far = match (kind, self.message) {
                    (Data::Continue, None) => return wrong("a continuation of nothing"),
                    (Data::Continue, Some(so_far)) => so_far,
                    (_, Some(_)) => return wrong("a new message within another"),
                    (_, None) => 0,
                };
                let message = so_far.saturating_add(len);
                if message > self.max_message {
                    return Err(WebSocketError::TooLarge(self.max_message));
                }
                self.message = (!header.is_final).then_some(message);
                Ok(())
            }
        }
    }

    /// One binary frame with the first `len` bytes of `plain`.
    pub(super) fn data(&mut self, plain: &[IoSlice<'_>], len: usize, out: &mut Vec<u8>) {
        let start = self.begin(OpCode::Data(Data::Binary), len, out);
        let mut left = len;
        for slice in plain {
            let piece = slice.get(..left.min(slice.len())).unwrap_or_default();
            left -= piece.len();
            out.extend_from_slice(piece);
        }
        finish(start, out);
    }

    pub(super) fn pong(&mut self, payload: &[u8], out: &mut Vec<u8>) {
        self.control(Control::Pong, payload, out);
    }

    pub(super) fn close(&mut self, code: Option<u16>, out: &mut Vec<u8>) {
        let code = code.map(u16::to_be_bytes);
        self.control(Control::Close, code.as_ref().map_or(&[], |code| code.as_slice()), out);
    }

    fn control(&mut self, kind: Control, payload: &[u8], out: &mut Vec<u8>) {
        let start = self.begin(OpCode::Control(kind), payload.len(), out);
        out.extend_from_slice(payload);
        finish(start, out);
    }

    /// Writes a header. Gives the mask and where the payload begins.
    fn begin(&mut self, opcode: OpCode, len: usize, out: &mut Vec<u8>) -> (Option<[u8; 4]>, usize) {
        let mask = (!self.is_server).then(|| self.masks.next());
        let header = FrameHeader { opcode, mask, ..FrameHeader::default() };
        out.reserve(len + MAX_HEADER);
        // Writing into memory does not fail.
        let _ = header.format(len as u64, out);
        (mask, out.len())
    }
}

/// Masks the payload.
fn finish((mask, start): (Option<[u8; 4]>, usize), out: &mut [u8]) {
    if let Some(mask) = mask {
        unmask(out.get_mut(start..).unwrap_or_default(), mask, 0);
    }
}

/// Masks or unmasks; `at` bytes of the payload came before.
fn unmask(bytes: &mut [u8], mut mask: [u8; 4], at: usize) {
    mask.rotate_left(at % 4);
    let wide = u64::from(u32::from_ne_bytes(mask));
    let wide = wide | wide << 32;
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    rest.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
}

/// The code of a close frame, if it has one.
fn close_code(payload: &[u8]) -> Result<Option<u16>, WebSocketError> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return match payload {
            [] => Ok(None),
            _ => Err(WebSocketError::Frame("a close frame with half a code")),
        };
    };
    match u16::from_be_bytes(*code) {
        1000..=1003 | 1007..=1014 | 3000..=4999 if std::str::from_utf8(reason).is_err() => {
            Err(WebSocketError::Frame("a close frame whose reason is no UTF-8"))
        }
        code @ (1000..=1003 | 1007..=1014 | 3000..=4999) => Ok(Some(code)),
        _ => Err(WebSocketError::Frame("a close frame with a code that none may have")),
    }
}

const MASKS: usize = 16;

/// Masks that nobody can guess, several for each call to the system.
struct Masks {
    random: [[u8; 4]; MASKS],
    left: usize,
}

impl Masks {
    fn next(&mut self) -> [u8; 4] {
        if self.left == 0 {
            let mut bytes = [0; 4 * MASKS];
            // Without randomness frames are still right; a mask guards proxies, not secrets.
            let _ = getrandom::fill(&mut bytes);
            let (masks, _) = bytes.as_chunks();
            self.random.iter_mut().zip(masks).for_each(|(to, from)| *to = *from);
            self.left = MASKS;
        }
        self.left -= 1;
        self.random.get(self.left).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: [u8; 4] = [1, 2, 3, 4];

    /// A frame from a client: its first byte and its payload.
    fn from_client(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![first];
        match payload.len() {
            len @ 0..126 => frame.push(0x80 | u8::try_from(len).unwrap()),
            len @ 126..=0xFFFF => {
                frame.push(0xFE);
                frame.extend(u16::try_from(len).unwrap().to_be_bytes());
            }
            len => {
                frame.push(0xFF);
                frame.extend((len as u64).to_be_bytes());
            }
        }
        frame.extend(MASK);
        frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    /// All data and items, with input in pieces of `size` bytes.
    fn take(bytes: &[u8], size: usize) -> Result<(Vec<u8>, Vec<Item>), WebSocketError> {
        let mut frames = Frames::server(1 << 20);
        let (mut data, mut items) = (Vec::new(), Vec::new());
        for mut piece in bytes.chunks(size) {
            while !piece.is_empty() {
                items.extend(frames.take(&mut piece, &mut data)?);
            }
        }
        Ok((data, items))
    }

    #[test]
    fn however_it_is_split_the_same_comes_out() {
        let long = vec![7; 300];
        let longer = vec![9; 70_000];
        let bytes = [
            from_client(0x82, b"one"),
            from_client(0x02, b"tw"),
            from_client(0x89, b"ping"),
            from_client(0x80, b"o"),
            from_client(0x82, b""),
            from_client(0x8A, b"pong"),
            from_client(0x82, &long),
            from_client(0x82, &longer),
            from_client(0x88, b"\x03\xe8bye"),
        ]
        .concat();
        let data = [b"onetwo".as_slice(), &long, &longer].concat();
        for size in [1, 2, 3, 5, 7, 13, 14, 15, 100, 4096, bytes.len()] {
            let (found, items) = take(&bytes, size).unwrap();
            assert!(found == data, "in pieces of {size}");
            assert_eq!(items, [Item::Ping(b"ping".to_vec()), Item::Close(Some(1000))]);
        }
    }

    #[test]
    fn frames_that_break_a_rule_are_refused() {
        let unmasked = [0x82, 1, 7].to_vec();
        let wide = [0x82, 0xFE, 0, 1, 1, 2, 3, 4, 7].to_vec();
        for (bytes, why) in [
            (unmasked, "without a mask"),
            (wide, "more bytes than it needs"),
            (from_client(0xC2, b"x"), "reserved bit"),
            (from_client(0x83, b"x"), "reserved opcode"),
            (from_client(0x8B, b"x"), "reserved opcode"),
            (from_client(0x81, b"x"), "a text frame"),
            (from_client(0x80, b"x"), "continuation of nothing"),
            ([from_client(0x02, b"x"), from_client(0x82, b"y")].concat(), "within another"),
            (from_client(0x09, b"x"), "in fragments"),
            (from_client(0x89, &[0; 126]), "more than 125 bytes"),
            (from_client(0x88, b"x"), "half a code"),
            (from_client(0x88, b"\x03\xed"), "that none may have"),
            (from_client(0x88, b"\x03\xe8\xff"), "no UTF-8"),
            (from_client(0x82, &vec![0; 2 << 20]), "more than 1048576 bytes"),
            (
                [from_client(0x02, &vec![0; 1 << 20]), from_client(0x80, b"x")].concat(),
                "more than 1048576 bytes",
            ),
        ] {
            let error = take(&bytes, usize::MAX).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            assert_eq!(take(&bytes, 1).unwrap_err().to_string(), error);
        }
    }

    #[test]
    fn what_a_client_sends_a_server_takes_and_the_other_way_round() {
        let (mut client, mut server) = (Frames::client(100), Frames::server(100));
        let mut wire = Vec::new();
        client.data(&[IoSlice::new(b"he"), IoSlice::new(b"llo!")], 5, &mut wire);
        client.close(Some(1000), &mut wire);
        let (mut data, mut input) = (Vec::new(), wire.as_slice());
        assert_eq!(server.take(&mut input, &mut data), Ok(None));
        assert_eq!(
            (data.as_slice(), server.take(&mut input, &mut Vec::new())),
            (b"hello".as_slice(), Ok(Some(Item::Close(Some(1000)))))
        );
        let mut wire = Vec::new();
        server.data(&[IoSlice::new(b"hi")], 2, &mut wire);
        assert_eq!(wire, [0x82, 2, b'h', b'i']);
        let (mut data, mut input) = (Vec::new(), wire.as_slice());
        assert_eq!(client.take(&mut input, &mut data), Ok(None));
        assert_eq!(data, b"hi");
        let masked = from_client(0x82, b"x");
        assert!(client.take(&mut masked.as_slice(), &mut Vec::new()).is_err());
    }
}
