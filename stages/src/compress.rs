//! `compress`: objects become zstd frames (RFC 8878), and back.
//!
//! The same bytes give the same frame: one thread, blocks cut at fixed places whatever the chunks that come in, no time
//! and no name inside. Each frame carries a checksum of its content, and the content's size where that is below
//! [`BLOCK`]; of a longer stream it is not known when the frame begins.
//!
//! A live object gets `.zst` after its name. The files of a tree keep their names, because these are what is restored;
//! receipts name the encodings of each body, so that bodies from before the transform was added to a flow, or removed from
//! it, stay readable.

use std::io::{self, BufRead as _, Read as _, Write as _};

use cdrvault_format::error::{Error, Kind, Result};
use cdrvault_plugin::codec::Codec;
use cdrvault_plugin::options::{Section, schema_of};
use cdrvault_plugin::payload::{Body, ByteStream, Form, Object, Payload, Shape};
use cdrvault_plugin::registry::Plugin;
use cdrvault_plugin::stage::{Transform, Work};
use futures::StreamExt as _;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::blocking::{self, ByteReader, ChannelWriter};
use crate::compression::Compression;

/// In receipts.
const ENCODING: &str = "zstd";

/// After the name of a live object.
const SUFFIX: &str = ".zst";

/// What goes into the encoder at a time, and the size up to which a frame says its size.
const BLOCK: usize = 1 << 20;

/// The window of the strongest levels (20 to 22) is 32 to 128 MiB, and their tables grow with it; 8 MiB is what level 19
/// has. It bounds the memory of a backup run and of everybody who decodes it.
const WINDOW_LOG: u32 = 23;

/// The largest window that is decoded: what `zstd -d` accepts without being asked twice.
const WINDOW_LOG_MAX: u32 = 27;

pub(crate) fn plugin() -> Plugin<dyn Transform> {
    Plugin {
        kind: "compress",
        about: "objects (dumps, files) to zstd",
        details: "A live object gets `.zst` after its name, and `zstd -d` reads it. Files of a tree are compressed one by one and \
                  keep their names. `compress = \"zstd(9)\"` is short for `compress = { compression = \"zstd(9)\" }`.",
        schema: schema_of::<Options>,
        parse: |section| parse(section),
    }
}

/// Objects to zstd.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[schemars(extend("x-shorthand" = "compression"))]
struct Options {
    /// `"zstd"` or `"zstd(LEVEL)"`, levels 1 (fast) to 22 (small).
    compression: Compression,
}

fn parse(section: &mut Section<'_>) -> Option<Box<dyn Transform>> {
    let Options { compression } = section.options()?;
    Some(Box::new(Compress { compression }))
}

/// The way back.
pub(crate) struct Zstd;

impl Codec for Zstd {
    fn name(&self) -> &'static str {
        ENCODING
    }

    fn suffix(&self) -> &'static str {
        SUFFIX
    }

    fn bytes(&self, encoded: ByteStream, limit: Option<u64>) -> Result<ByteStream> {
        Ok(blocking::recode(encoded, move |reader, writer| decode(reader, writer, limit)))
    }
}

/// See the module.
struct Compress {
    compression: Compression,
}

impl Transform for Compress {
    fn kind(&self) -> &'static str {
        "compress"
    }

    fn accepts(&self, input: Shape) -> Option<Shape> {
        (input == Shape::Objects).then_some(Shape::Objects)
    }

    fn apply(&self, work: &Work, input: Payload) -> Result<Payload> {
        let (form, compression) = (work.form, self.compression);
        each(input, move |object| compress(object, form, compression))
    }
}

fn each(input: Payload, change: impl Fn(Object) -> Object + Send + 'static) -> Result<Payload> {
    match input {
        Payload::Objects(objects) => Ok(Payload::Objects(objects.map(move |object| object.map(&change)).boxed())),
        Payload::Rows(_) => Err(Error::failed("`compress` was given rows")),
    }
}

fn compress(object: Object, form: Form, compression: Compression) -> Object {
    let Object { mut entry, body } = object;
    let body = match bytes_of(body) {
        Ok(bytes) => bytes,
        Err(body) => return Object { entry, body },
    };
    entry.encoded(ENCODING);
    if form == Form::Object {
        entry.path.0.extend_from_slice(SUFFIX.as_bytes());
    }
    let encoded = blocking::recode(body, move |reader, writer| encode(reader, writer, compression.level()));
    Object { entry, body: Body::Stream(encoded) }
}

/// The bytes of a body that has some here; the body itself where there is nothing to encode.
fn bytes_of(body: Body) -> Result<ByteStream, Body> {
    match body {
        Body::Stream(bytes) => Ok(bytes),
        Body::File(path) => Ok(blocking::read_file(path)),
        Body::None | Body::Unchanged | Body::Withdrawn => Err(body),
    }
}

fn encode(mut reader: ByteReader, writer: &mut ChannelWriter<'_>, level: i32) -> Result<()> {
    let cannot = |error| blocking::unwrap_io("compress", error);
    let mut block = Vec::new();
    fill(&mut reader, &mut block).map_err(cannot)?;
    let mut encoder = zstd::Encoder::new(writer, level).map_err(cannot)?;
    encoder.include_checksum(true).map_err(cannot)?;
    if level > 19 {
        encoder.window_log(WINDOW_LOG).map_err(cannot)?;
    }
    if block.len() < BLOCK {
        encoder.set_pledged_src_size(Some(block.len() as u64)).map_err(cannot)?;
    }
    loop {
        encoder.write_all(&block).map_err(cannot)?;
        if block.len() < BLOCK {
            break;
        }
        fill(&mut reader, &mut block).map_err(cannot)?;
    }
    encoder.finish().map(drop).map_err(cannot)
}

/// A whole [`BLOCK`], or less at the end of the input.
fn fill(reader: &mut ByteReader, block: &mut Vec<u8>) -> io::Result<()> {
    block.clear();
    reader.take(BLOCK as u64).read_to_end(block).map(drop)
}

/// Decodes in constant memory: the window is bounded, and so is the length where it is known to be `limit`.
fn decode(mut reader: ByteReader, writer: &mut ChannelWriter<'_>, limit: Option<u64>) -> Result<()> {
    let cannot = |error| blocking::unwrap_io("decompress", error);
    // To the decoder nothing is nothing; but even an empty file has a frame.
    if reader.fill_buf().map_err(cannot)?.is_empty() {
        return Err(Error::new(Kind::Damaged, "cannot decompress: there is no zstd frame in it"));
    }
    let mut decoder = zstd::Decoder::with_buffer(reader).map_err(cannot)?;
    decoder.window_log_max(WINDOW_LOG_MAX).map_err(cannot)?;
    let most = limit.unwrap_or(u64::MAX);
    io::copy(&mut decoder.by_ref().take(most), writer).map_err(cannot)?;
    // One read more also checks the frame's checksum, which stands behind its content.
    if decoder.read(&mut [0]).map_err(cannot)? > 0 {
        return Err(Error::new(Kind::Damaged, format!("decompresses to more than its {most} bytes")));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
