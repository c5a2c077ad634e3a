#![allow(clippy::disallowed_methods, clippy::assigning_clones, reason = "tests may write files as they like")]
use super::*;

use bytes::Bytes;
use cdrvault_format::entry::{Entry, EntryKind, StoredBody};
use cdrvault_format::partition::{Partition, Unit};
use cdrvault_plugin::codec::Codecs;
use futures::{TryStreamExt as _, stream};
use proptest::prelude::*;

fn work(form: Form) -> Work {
    Work::new(Unit::new("dump", Partition::Snapshot), 1, form)
}

fn transform(level: &str) -> Compress {
    Compress { compression: level.parse().unwrap() }
}

/// One object of `data` in chunks of `chunk` bytes.
fn payload(data: &[u8], chunk: usize, entry: Entry) -> Payload {
    let chunks: Vec<_> = data.chunks(chunk.max(1)).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
    objects(vec![Object { entry, body: Body::Stream(stream::iter(chunks).boxed()) }])
}

fn objects(objects: Vec<Object>) -> Payload {
    Payload::Objects(stream::iter(objects.into_iter().map(Ok)).boxed())
}

async fn read(payload: Payload) -> Result<Vec<(Entry, Vec<u8>)>> {
    let Payload::Objects(mut objects) = payload else { panic!("rows") };
    let mut read = Vec::new();
    while let Some(Object { entry, body }) = objects.try_next().await? {
        let bytes = match body {
            Body::Stream(bytes) => bytes.try_collect::<Vec<Bytes>>().await?.concat(),
            _ => Vec::new(),
        };
        read.push((entry, bytes));
    }
    Ok(read)
}

async fn compressed(data: &[u8], chunk: usize, level: &str) -> Vec<u8> {
    let out = transform(level).apply(&work(Form::Object), payload(data, chunk, Entry::object("a.sql"))).unwrap();
    let mut out = read(out).await.unwrap();
    let (entry, bytes) = out.pop().unwrap();
    assert_eq!(entry.path, "a.sql.zst".into());
    bytes
}

async fn decompressed(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut entry = Entry::object("a.sql.zst");
    entry.encoded("zstd");
    let mut out = read(undone(payload(bytes, 1000, entry))).await?;
    Ok(out.pop().unwrap().1)
}

/// What a restore makes of it.
fn undone(stored: Payload) -> Payload {
    let Payload::Objects(stored) = stored else { panic!("rows") };
    let mut codecs = Codecs::default();
    codecs.add(Zstd);
    Payload::Objects(stored.map(move |object| codecs.plain(object?)).boxed())
}

/// Text that repeats and text that does not, longer than a block.
fn sample(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (b'a'..=b'q').cycle().take(length).map(|letter| if letter < b'f' { noise() } else { letter }).collect()
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn undo_gives_back_what_apply_took(
        data in prop::collection::vec(any::<u8>(), 0..5000), repeats in 1_usize..60, chunk in 1_usize..9000, level in 1..=12,
    ) {
        let data = data.repeat(repeats);
        let (once, again, back) = run(async {
            let once = compressed(&data, chunk, &format!("zstd({level})")).await;
            let again = compressed(&data, 70_001, &format!("zstd({level})")).await;
            let back = decompressed(&once).await.unwrap();
            (once, again, back)
        });
        prop_assert_eq!(&back, &data);
        prop_assert_eq!(once, again, "the chunks that come in are not part of the bytes");
    }

    #[test]
    fn damaged_input_is_never_taken_for_good(at in any::<prop::sample::Index>(), bit in 0_u8..8, cut in any::<prop::sample::Index>()) {
        let data = sample(20_000);
        let (cut, flipped) = run(async {
            let whole = compressed(&data, 4096, "zstd").await;
            let mut flipped = whole.clone();
            flipped[at.index(whole.len())] ^= 1 << bit;
            (decompressed(&whole[..cut.index(whole.len())]).await, decompressed(&flipped).await)
        });
        prop_assert_eq!(cut.unwrap_err().kind(), Kind::Damaged);
        match flipped {
            Err(error) => prop_assert_eq!(error.kind(), Kind::Damaged),
            // A frame's header has a bit that means nothing and a window that may be larger than it needs to be.
            Ok(bytes) => prop_assert_eq!(bytes, data),
        }
    }
}

#[tokio::test]
async fn streams_longer_than_a_block_give_the_same_bytes_whatever_their_chunks() {
    for length in [BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 17] {
        let data = sample(length);
        let once = compressed(&data, 1 << 20, "zstd").await;
        assert_eq!(once, compressed(&data, 3_333, "zstd").await);
        assert_eq!(decompressed(&once).await.unwrap(), data);
    }
}

#[tokio::test]
async fn other_tools_read_it_and_small_windows_suffice() {
    let data = sample(BLOCK + 100_000);
    for level in ["zstd(1)", "zstd(19)", "zstd(22)"] {
        let bytes = compressed(&data, 100_000, level).await;
        let mut decoder = zstd::Decoder::new(bytes.as_slice()).unwrap();
        decoder.window_log_max(WINDOW_LOG).unwrap();
        let mut back = Vec::new();
        decoder.read_to_end(&mut back).unwrap();
        assert!(back == data, "{level}");
    }
    let small = compressed(b"small", 2, "zstd").await;
    assert!(matches!(zstd::zstd_safe::get_frame_content_size(&small), Ok(Some(5))));
}

#[tokio::test]
async fn files_of_a_tree_keep_their_names_and_say_how_they_are_stored() {
    let data = sample(5000);
    let mut unchanged = Entry::object("b");
    unchanged.stored = Some(StoredBody { sha256: "ab".into(), bytes: 7, encodings: vec![] });
    let mut directory = Entry::object("c");
    directory.kind = EntryKind::Directory;
    let withdrawn = Entry::object("d");
    let body = || Body::Stream(stream::iter([Ok(Bytes::from(sample(5000)))]).boxed());
    let input = objects(vec![
        Object { entry: Entry::object("a"), body: body() },
        Object { entry: unchanged.clone(), body: Body::Unchanged },
        Object { entry: directory.clone(), body: Body::None },
        Object { entry: withdrawn.clone(), body: Body::Withdrawn },
    ]);
    let Payload::Objects(out) = transform("zstd").apply(&work(Form::Tree), input).unwrap() else { panic!("rows") };
    let mut out: Vec<Object> = out.try_collect().await.unwrap();
    assert!(matches!(out[1].body, Body::Unchanged) && out[1].entry == unchanged);
    assert!(matches!(out[2].body, Body::None) && out[2].entry == directory);
    assert!(matches!(out[3].body, Body::Withdrawn) && out[3].entry == withdrawn);
    assert_eq!(out[0].entry.path, "a".into());
    assert_eq!(out[0].entry.stored.as_ref().unwrap().encodings, ["zstd"]);

    // As the vault gives them back: one that is compressed, and one from before.
    let mut plain = Entry::object("p");
    plain.stored = unchanged.stored;
    let input = objects(vec![out.swap_remove(0), Object { entry: plain, body: body() }]);
    let back = read(undone(input)).await.unwrap();
    assert!(back.iter().all(|(entry, bytes)| *bytes == data && entry.stored.as_ref().unwrap().encodings.is_empty()));
}

#[tokio::test]
async fn what_decodes_to_more_than_its_size_is_damaged() {
    let bomb = compressed(&vec![0; 50_000_000], 1 << 20, "zstd(19)").await;
    let mut entry = Entry::object("a");
    entry.size = 1000;
    entry.sha256 = Some("00".into());
    entry.stored = Some(StoredBody { sha256: String::new(), bytes: 0, encodings: vec!["zstd".into()] });
    let error = read(undone(payload(&bomb, 4096, entry))).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Damaged);
    assert_eq!(error.message(), "`a`: decompresses to more than its 1000 bytes");
}

#[tokio::test]
async fn windows_that_need_too_much_memory_are_refused() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.window_log(28).unwrap();
    encoder.write_all(&sample(3 * BLOCK)).unwrap();
    assert_eq!(decompressed(&encoder.finish().unwrap()).await.unwrap_err().kind(), Kind::Damaged);
}

#[tokio::test]
async fn an_error_of_the_source_stays_what_it_is() {
    let chunks = vec![Ok(Bytes::from(sample(2_000_000))), Err(Error::interrupted())];
    let body = Body::Stream(stream::iter(chunks).boxed());
    let out = transform("zstd")
        .apply(&work(Form::Object), objects(vec![Object { entry: Entry::object("a"), body }]))
        .unwrap();
    assert_eq!(read(out).await.unwrap_err().kind(), Kind::Interrupted);
}

#[tokio::test]
async fn local_files_are_read_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a");
    std::fs::write(&path, sample(300_000)).unwrap();
    let object = Object { entry: Entry::object("a"), body: Body::File(path) };
    let out = transform("zstd").apply(&work(Form::Object), objects(vec![object])).unwrap();
    let (_, bytes) = read(out).await.unwrap().pop().unwrap();
    assert_eq!(decompressed(&bytes).await.unwrap(), sample(300_000));

    let object = Object { entry: Entry::object("a"), body: Body::File(directory.path().join("none")) };
    let out = transform("zstd").apply(&work(Form::Object), objects(vec![object])).unwrap();
    assert_eq!(read(out).await.unwrap_err().kind(), Kind::NotFound);
}
