//! Every form of a body, well-formed and not.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use ::base64::Engine;
use ::base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use axum::body::HttpBody;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use proptest::prelude::*;
use serde_json::json;

use super::*;

const MAX_IMAGES: usize = 3;

const JSON: &str = "application/json";
const FORM: &str = "multipart/form-data; boundary=XX";

fn config() -> Config {
    Config {
        max_body_bytes: 10_000,
        max_images: MAX_IMAGES,
        ..Config::default()
    }
}

/// Pictures or the problem, in short.
fn shown(result: Result<Vec<Picture>, Problem>) -> String {
    let picture = |picture: Picture| match picture {
        Picture::Encoded(bytes) => format!("file {}", String::from_utf8_lossy(&bytes)),
        Picture::Pixels(p) => format!("{}×{}×{} {:?}", p.height, p.width, p.channels, p.bytes),
        Picture::Refused(error) => format!("refused: {error}"),
    };
    match result {
        Ok(pictures) => pictures.into_iter().map(picture).collect::<Vec<_>>().join("; "),
        Err(problem) => format!("{}: {}", problem.kind.name(), problem.detail),
    }
}

async fn read(headers: &[(&str, &str)], body: impl Into<Body>) -> String {
    let pairs = headers
        .iter()
        .map(|&(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
    shown(
        pictures(&pairs.collect(), body.into(), &Bodies::new(&config()))
            .await
            .map(|(pictures, _)| pictures),
    )
}

async fn check(content_type: &str, body: &str, expected: &str) {
    let found = read(&[("content-type", content_type)], body.to_owned()).await;
    assert_eq!(found, expected, "{content_type}: {body}");
}

#[tokio::test]
async fn the_content_type_tells_the_form() {
    for content_type in [
        "image/png",
        "IMAGE/JPEG",
        "image/svg+xml",
        "application/octet-stream",
        "Application/Octet-Stream ; x=y",
        "",
    ] {
        check(content_type, "abc", "file abc").await;
    }
    assert_eq!(read(&[], "abc").await, "file abc");
    assert_eq!(read(&[], "").await, "file ");
    for content_type in ["application/json", "APPLICATION/JSON;charset=utf-8"] {
        check(content_type, r#"{"image":"YWJj"}"#, "file abc").await;
    }
    let refused = "unsupported-media-type: the content type is none of image/*, application/octet-stream, \
                   multipart/form-data and application/json";
    for content_type in [
        "text/plain",
        "image",
        "application/x-www-form-urlencoded",
        "application/jsonp",
    ] {
        check(content_type, "abc", refused).await;
    }
}

#[tokio::test]
async fn a_compressed_body_is_not_read() {
    for encoding in ["", "identity", "Identity"] {
        assert_eq!(read(&[("content-encoding", encoding)], "abc").await, "file abc");
    }
    for encoding in ["gzip", "br", "identity, gzip"] {
        let found = read(&[("content-encoding", encoding)], "abc").await;
        assert!(
            found.starts_with("unsupported-media-type: "),
            "{encoding}: {found}"
        );
    }
}

/// A body that comes in pieces and may never end.
struct Pieces {
    pieces: VecDeque<Bytes>,
    told: SizeHint,
    ends: bool,
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.pieces.pop_front() {
            Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            None if self.ends => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.told
    }
}

#[tokio::test]
async fn a_body_is_read_whole_within_its_size_and_time() {
    let pieces = |sizes: &[usize], ends| {
        let pieces = sizes.iter().map(|&size| vec![b'x'; size].into()).collect();
        let told = SizeHint::default();
        Body::new(Pieces { pieces, told, ends })
    };
    let check = async |body: Body, expected: Result<usize, Kind>| {
        let config = Config {
            max_body_bytes: 10,
            body_timeout_ms: 0,
            ..config()
        };
        let found = body::read(body, &Bodies::new(&config), Use::AsItIs).await;
        assert_eq!(found.map(|whole| whole.bytes.len()).map_err(|p| p.kind), expected);
    };
    check(Body::empty(), Ok(0)).await;
    check(Body::from("x".repeat(10)), Ok(10)).await;
    check(pieces(&[3, 0, 7], true), Ok(10)).await;
    check(Body::from("x".repeat(11)), Err(Kind::BodyTooLarge)).await;
    check(pieces(&[11], false), Err(Kind::BodyTooLarge)).await;
    check(pieces(&[9, 2], false), Err(Kind::BodyTooLarge)).await;
    check(pieces(&[3, 3, 3, 2], false), Err(Kind::BodyTooLarge)).await;
    check(pieces(&[], false), Err(Kind::BodyTimeout)).await;
    check(pieces(&[3, 3], false), Err(Kind::BodyTimeout)).await;
    // Its length is told: refused although nothing of it ever comes.
    let unread = Pieces {
        pieces: VecDeque::new(),
        told: SizeHint::with_exact(11),
        ends: false,
    };
    check(Body::new(unread), Err(Kind::BodyTooLarge)).await;
}

/// Room for large bodies of 180 kB in all.
fn little_room() -> Bodies {
    Bodies::new(&Config {
        max_bodies_bytes: 200 << 10,
        ..Config::default()
    })
}

/// A body of pieces of 50 kB, its length told; `ends`: and with them it ends.
fn large(pieces: u64, ends: bool) -> Body {
    let piece = Bytes::from(vec![b'x'; 50 << 10]);
    let told = if ends { pieces } else { pieces + 1 };
    Body::new(Pieces {
        pieces: (0..pieces).map(|_| piece.clone()).collect(),
        told: SizeHint::with_exact(told * (50 << 10)),
        ends,
    })
}

#[tokio::test]
async fn a_large_body_is_read_when_there_is_room_for_it() {
    let bodies = little_room();
    let first = body::read(large(3, true), &bodies, Use::AsItIs).await.unwrap();
    assert_eq!(first.bytes.len(), 150 << 10);
    let mut second = pin!(body::read(large(3, true), &bodies, Use::AsItIs));
    let waits = |read: Pin<&mut _>| Future::poll(read, &mut Context::from_waker(Waker::noop())).is_pending();
    assert!(waits(second.as_mut()));
    // Few bytes need no room.
    assert!(body::read(large(1, true), &bodies, Use::AsItIs).await.is_ok());
    // The room is the picture's, not the bytes'.
    let Whole { bytes, room } = first;
    drop(bytes);
    assert!(waits(second.as_mut()));
    drop(room);
    assert_eq!(second.await.unwrap().bytes.len(), 150 << 10);
}

#[tokio::test]
async fn json_takes_room_for_what_is_unpacked_from_it() {
    let check = async |pieces, used, expected: Result<usize, Kind>| {
        let found = body::read(large(pieces, true), &little_room(), used).await;
        assert_eq!(found.map(|whole| whole.bytes.len()).map_err(|p| p.kind), expected);
    };
    check(3, Use::AsItIs, Ok(150 << 10)).await;
    check(3, Use::Json, Err(Kind::BodyTooLarge)).await;
    check(1, Use::Json, Ok(50 << 10)).await;
}

#[tokio::test]
async fn who_stalls_gives_room_to_who_waits() {
    let bodies = little_room();
    // The stalling one holds the room until somebody wants it.
    let stalls = body::read(large(2, false), &bodies, Use::AsItIs);
    let waits = async {
        tokio::task::yield_now().await;
        body::read(large(2, true), &bodies, Use::AsItIs).await
    };
    let (stalled, read) = tokio::join!(stalls, waits);
    let problem = stalled.unwrap_err();
    assert_eq!(problem.kind, Kind::BodyTimeout);
    assert!(problem.detail.contains("while others wait"), "{}", problem.detail);
    assert_eq!(read.unwrap().bytes.len(), 100 << 10);
}

fn part(name: &str, content: &str) -> String {
    format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"../x\"\r\n\r\n{content}\r\n")
}

#[tokio::test]
async fn parts_named_image_are_images() {
    let form = |parts: &[(&str, &str)]| {
        let parts: String = parts.iter().map(|(name, content)| part(name, content)).collect();
        parts + "--XX--\r\n"
    };
    check(FORM, &form(&[("image", "a")]), "file a").await;
    let three = form(&[("image", "a"), ("images", "\r\n--X"), ("image", "")]);
    check(FORM, &three, "file a; file \r\n--X; file ").await;
    check(&FORM.replace("form", "FORM"), &form(&[("image", "a")]), "file a").await;
    check(
        FORM,
        &form(&[("image", "a"); 4]),
        "invalid-input: the request holds more than 3 images",
    )
    .await;
    let named = "invalid-input: a part is named 'label'; images are parts named 'image'";
    check(FORM, &form(&[("image", "a"), ("label", "7")]), named).await;
    check(FORM, &form(&[]), "invalid-input: the request holds no image").await;
    let broken = "bad-request: the multipart form cannot be read: a part is broken or cut short";
    for body in [
        "",
        "no boundary",
        "--XX\r\n",
        "--XX\r\nnonsense\r\n\r\n",
        &part("image", "no end"),
    ] {
        check(FORM, body, broken).await;
    }
    let no_boundary = "bad-request: the multipart form cannot be read: its content type names no boundary";
    check("multipart/form-data", &form(&[("image", "a")]), no_boundary).await;
}

#[tokio::test]
async fn json_holds_strings_of_base64() {
    let string = async |text: &str, expected: &str| {
        check(JSON, &json!({ "image": text }).to_string(), expected).await;
    };
    string("YWJj", "file abc").await;
    string("YQ==", "file a").await;
    string("YQ", "file a").await;
    string("YWI=\n", "file ab").await;
    string(" YW\r\n Jj\t", "file abc").await;
    string("Pj4+Pz8/", "file >>>???").await;
    string("Pj4-Pz8_", "file >>>???").await;
    string("", "file ").await;
    string("data:image/png;base64,YWJj", "file abc").await;
    string("DATA:;charset=x;Base64,YWJj", "file abc").await;
    for text in ["Y", "YW*j", "Pj4+Pz8_", "a=b=", "é", "YWJj YWJj=="] {
        string(text, "refused: the string is not base64").await;
    }
    let comma = "refused: a data URL has a comma before its data";
    string("data:image/png;base64", comma).await;
    let plain = "refused: a data URL of an image is in base64 (data:image/png;base64,…)";
    string("data:image/png,abc", plain).await;
    string("data:base64,abc", plain).await;
    let fetched = "refused: images are not fetched from URLs; send the image's bytes in base64";
    string("http://127.0.0.1:9/a.png", fetched).await;
    string("HTTPS://example.org/a.png", fetched).await;
}

#[tokio::test]
async fn json_lists_images_in_every_customary_form() {
    let cases = [
        (r#"{"images":["YQ","Yg"]}"#, "file a; file b"),
        (
            r#"{"instances":["YQ",{"b64":"Yg"},{"image":{"b64":"Yw"}}]}"#,
            "file a; file b; file c",
        ),
        (
            r#"{"instances":[{"image":"YQ"},{"image":[[1]]},[[2]]]}"#,
            "file a; 1×1×1 [1]; 1×1×1 [2]",
        ),
        (r#"{"image":{"b64":"Y\u0051"}}"#, "file a"),
        (
            r#"{"images":["YQ","*",[]]}"#,
            "file a; refused: the string is not base64; refused: the image has no pixels",
        ),
        (r#"{"images":["YQ","YQ","YQ"]}"#, "file a; file a; file a"),
        (
            r#"{"images":["YQ","YQ","YQ",{"any":[[]]}]}"#,
            "invalid-input: the request holds more than 3 images",
        ),
        (r#"{"images":[]}"#, "invalid-input: the request holds no image"),
    ];
    for (body, expected) in cases {
        check(JSON, body, expected).await;
    }
}

#[tokio::test]
async fn json_that_is_something_else_is_a_bad_request() {
    let keys = "an object with exactly one of the keys image, images and instances";
    let cases = [
        ("", "EOF"),
        ("{", "EOF"),
        (r#"{"image":"YQ"} x"#, "trailing characters"),
        ("[]", &format!("invalid type: sequence, expected {keys}")),
        ("7", &format!("invalid type: integer `7`, expected {keys}")),
        ("{}", &format!("invalid length 0, expected {keys}")),
        (
            r#"{"image":"YQ","images":[]}"#,
            &format!("invalid length 2, expected {keys}"),
        ),
        (
            r#"{"image":"YQ","image":"YQ"}"#,
            &format!("invalid length 2, expected {keys}"),
        ),
        (
            r#"{"picture":"YQ"}"#,
            "unknown field `picture`, expected one of `image`, `images`, `instances`",
        ),
        (r#"{"image":"YQ","top_k":3}"#, "unknown field `top_k`"),
        (
            r#"{"images":"YQ"}"#,
            "invalid type: string \"YQ\", expected an array of images",
        ),
        (
            r#"{"images":["YQ",7]}"#,
            "invalid type: integer `7`, expected an image: a string of base64",
        ),
        (r#"{"image":null}"#, "invalid type: null, expected an image"),
        (
            r#"{"image":{}}"#,
            "invalid length 0, expected an object with exactly one of the keys b64 and image",
        ),
        (r#"{"image":{"b64":"YQ","image":"YQ"}}"#, "invalid length 2"),
        (
            r#"{"image":{"url":"x"}}"#,
            "unknown field `url`, expected `b64` or `image`",
        ),
        (
            r#"{"image":{"b64":7}}"#,
            "invalid type: integer `7`, expected a string",
        ),
        (
            r#"{"image":[[null]]}"#,
            "invalid type: null, expected rows of pixels of levels from 0 to 255",
        ),
        (
            r#"{"image":[[[[0]]]]}"#,
            "pixel levels nest no deeper than rows, pixels and levels",
        ),
        // What a caller wrote is told on one line.
        (
            "{\"ima\\nge\\u0000\": 1}",
            "unknown field `ima\\nge\\u{0}`, expected one of `image`",
        ),
    ];
    for (body, expected) in cases {
        let found = read(&[("content-type", JSON)], body).await;
        let expected = format!("bad-request: the JSON is not understood: {expected}");
        assert!(found.starts_with(&expected), "{body}: {found}");
    }
    let long = format!(r#"{{"{}":0}}"#, "é".repeat(4000));
    assert!(read(&[("content-type", JSON)], long).await.chars().count() < 300);
    let not_utf8 = read(&[("content-type", JSON)], &b"{\"image\":\"\xff\"}"[..]).await;
    assert!(not_utf8.starts_with("bad-request: "), "{not_utf8}");
}

#[tokio::test]
async fn depth_is_no_way_to_the_end_of_the_stack() {
    for (open, start) in [
        ("[", ""),
        ("[", r#"{"instances":"#),
        (r#"{"image":"#, ""),
        (r#"{"image":"#, r#"{"images":["#),
    ] {
        let body = format!("{start}{}", open.repeat(50_000));
        let config = Config::default();
        let headers = [(CONTENT_TYPE, HeaderValue::from_static(JSON))]
            .into_iter()
            .collect();
        let found = shown(
            pictures(&headers, body.into(), &Bodies::new(&config))
                .await
                .map(|(pictures, _)| pictures),
        );
        assert!(
            found.starts_with("bad-request: the JSON is not understood: "),
            "{found}"
        );
    }
}

#[tokio::test]
async fn nested_numbers_are_pixels() {
    let rows = "refused: the rows are not all of the same length";
    let levels = "refused: the pixels do not all have the same number of levels";
    let array = "refused: an image is an array of rows, a row an array of pixels";
    let cases = [
        ("[[0]]", "1×1×1 [0]"),
        ("[[1,2,3],[4,5,255]]", "2×3×1 [1, 2, 3, 4, 5, 255]"),
        ("[[[1],[2]]]", "1×2×1 [1, 2]"),
        ("[[[1,2]],[[3,4]]]", "2×1×2 [1, 2, 3, 4]"),
        ("[[[1,2,3],[4,5,6]]]", "1×2×3 [1, 2, 3, 4, 5, 6]"),
        ("[[[1,2,3,4]]]", "1×1×4 [1, 2, 3, 4]"),
        ("[[12.0, 2e1, -0.0]]", "1×3×1 [12, 20, 0]"),
        ("[]", "refused: the image has no pixels"),
        ("[[],[]]", "refused: the image has no pixels"),
        ("[[[],[]]]", "refused: the image has no pixels"),
        ("[1,2]", array),
        ("[[1],2]", array),
        ("[[1,2],[3]]", rows),
        ("[[1],[]]", rows),
        ("[[],[1]]", rows),
        ("[[[1,2,3],[4,5]]]", levels),
        ("[[[1,2],3]]", levels),
        ("[[1,[2,3]]]", levels),
        ("[[[1,2,3]],[[1],[2],[3]]]", levels),
        (
            "[[0.5]]",
            "refused: pixel levels are whole numbers from 0 to 255; 0.5 is none",
        ),
        (
            "[[1],[256]]",
            "refused: pixel levels are whole numbers from 0 to 255; 256 is none",
        ),
        (
            "[[-1, 0.5]]",
            "refused: pixel levels are whole numbers from 0 to 255; -1 is none",
        ),
        (
            "[[[1,2,3,4,5]]]",
            "refused: a pixel has 1 level (grey), 2 (grey, alpha), 3 (red, green, blue) or 4 (with alpha), not 5",
        ),
    ];
    for (instance, expected) in cases {
        let body = format!(r#"{{"instances":[{instance},[[7]]]}}"#);
        check(JSON, &body, &format!("{expected}; 1×1×1 [7]")).await;
    }
}

fn json_pictures(body: &str) -> String {
    shown(json::pictures(body.as_bytes(), MAX_IMAGES))
}

proptest! {
    #[test]
    fn every_rectangle_of_levels_comes_back(
        height in 1usize..5, width in 1usize..5, channels in 1usize..5, seed in prop::collection::vec(any::<u8>(), 64)
    ) {
        let pixel = |at: usize| seed[at * channels..(at + 1) * channels].to_vec();
        let row = |y: usize| (0..width).map(|x| pixel(y * width + x)).collect::<Vec<_>>();
        let image: Vec<_> = (0..height).map(row).collect();
        let bytes = image.concat().concat();
        let body = json!({ "instances": [image] }).to_string();
        prop_assert_eq!(json_pictures(&body), format!("{height}×{width}×{channels} {bytes:?}"));
    }

    #[test]
    fn every_file_comes_back_from_every_base64(file in prop::collection::vec(any::<u8>(), 0..200)) {
        for engine in [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD] {
            let picture = base64::picture(&engine.encode(&file));
            prop_assert!(matches!(picture, Picture::Encoded(bytes) if bytes == file));
        }
    }

    #[test]
    fn damaged_json_is_an_answer_and_no_panic(at in 0usize..90, byte in any::<u8>(), cut in 0usize..90) {
        let mut body = br#"{"instances":[[[1,2],[3,4]],{"b64":"YWJj"},{"image":[[[1,2,3]]]}]}"#.to_vec();
        body.truncate(cut.max(1));
        let at = at % body.len();
        body[at] = byte;
        if let Err(problem) = json::pictures(&body, MAX_IMAGES) {
            prop_assert!(matches!(problem.kind, Kind::BadRequest | Kind::InvalidInput));
        }
    }
}
