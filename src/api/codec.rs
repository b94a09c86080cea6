//! Prost's codec, with one difference: what becomes of bytes that are no message. Of our own services it is the fault of
//! whoever sent them, and told so; of Envoy's it is an empty message, which its service refuses in an answer.

use std::any::TypeId;
use std::collections::HashMap;

use prost::bytes::Buf as _;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use prost::{DecodeError, Message};
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{BatchAuthorizeRequest, BatchDelegateRequest};

const MALFORMED: &str = "REQUEST_MALFORMED";
/// Items of a batch: `domain::limits::BATCH_ITEMS`, which this room does not know.
pub(crate) const BATCH_ITEMS: usize = 100;
/// The number of both batches' only field.
const REQUESTS: u32 = 1;

/// The codec of our own generated services and clients.
pub struct StrictCodec<T, U>(ProstCodec<T, U>);

impl<T, U> Default for StrictCodec<T, U> {
    fn default() -> Self {
        Self(ProstCodec::default())
    }
}

impl<T, U> Codec for StrictCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = StrictDecoder<<ProstCodec<T, U> as Codec>::Decoder>;

    fn encoder(&mut self) -> Self::Encoder {
        self.0.encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        StrictDecoder(self.0.decoder())
    }
}

/// A decoder whose failures are `INVALID_ARGUMENT`. What was in the bytes is not repeated.
pub struct StrictDecoder<D>(D);

impl<D> Decoder for StrictDecoder<D>
where
    D: Decoder<Error = Status>,
    D::Item: 'static,
{
    type Item = D::Item;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        let no_message = || malformed("message", "the bytes are not the protobuf message of this method");
        if is_batch::<D::Item>() && items(bytes.chunk()).map_err(|_| no_message())? > BATCH_ITEMS {
            return Err(malformed("requests", &format!("at most {BATCH_ITEMS} in a batch")));
        }
        self.0.decode(bytes).map_err(|_| no_message())
    }

    fn buffer_settings(&self) -> tonic::codec::BufferSettings {
        self.0.buffer_settings()
    }
}

fn malformed(field: &str, why: &str) -> Status {
    let mut details = ErrorDetails::with_bad_request_violation(field, why);
    details.set_error_info(MALFORMED, "remit", HashMap::new());
    let mut status = Status::with_error_details(Code::InvalidArgument, format!("{field}: {why}"), details);
    status.metadata_mut().insert("remit-reason", MetadataValue::from_static(MALFORMED));
    status
}

fn is_batch<T: 'static>() -> bool {
    [TypeId::of::<BatchAuthorizeRequest>(), TypeId::of::<BatchDelegateRequest>()].contains(&TypeId::of::<T>())
}

/// How many items a batch has, as prost would read it, without room for any: an empty one takes two bytes here and
/// hundreds when decoded. It stops counting beyond the bound.
fn items(mut batch: &[u8]) -> Result<usize, DecodeError> {
    let mut items = 0_usize;
    while batch.has_remaining() && items <= BATCH_ITEMS {
        let (tag, wire_type) = decode_key(&mut batch)?;
        skip_field(wire_type, tag, &mut batch, DecodeContext::default())?;
        items = items.saturating_add(usize::from(tag == REQUESTS));
    }
    Ok(items)
}

/// The codec of a service whose caller takes an error for leave to decide itself: Envoy, where `failure_mode_allow` is
/// set. A client that can make Envoy send bytes that are no message (CVE-2024-23324) must not come by an error.
pub struct LenientCodec<T, U>(ProstCodec<T, U>);

impl<T, U> Default for LenientCodec<T, U> {
    fn default() -> Self {
        Self(ProstCodec::default())
    }
}

impl<T, U> Codec for LenientCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = LenientDecoder<<ProstCodec<T, U> as Codec>::Decoder>;

    fn encoder(&mut self) -> Self::Encoder {
        self.0.encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        LenientDecoder(self.0.decoder())
    }
}

/// The largest message that is read, in bytes: a request with its headers and body.
const READ_BYTES: usize = 1024 * 1024;

/// A decoder to which bytes that are no message, or more than any, are an empty one.
pub struct LenientDecoder<D>(D);

impl<D> Decoder for LenientDecoder<D>
where
    D: Decoder<Error = Status>,
    D::Item: Default,
{
    type Item = D::Item;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        let read = if bytes.remaining() > READ_BYTES { None } else { self.0.decode(bytes).ok() };
        Ok(read.unwrap_or_else(|| {
            bytes.advance(bytes.remaining());
            Some(D::Item::default())
        }))
    }

    fn buffer_settings(&self) -> tonic::codec::BufferSettings {
        self.0.buffer_settings()
    }
}
