//! Prost's codec, with one difference: what becomes of bytes that are no message. Of our own services it is the fault of
//! whoever sent them, and told so; of Envoy's it is an empty message, which its service refuses in an answer.

use std::collections::HashMap;

use prost::Message;
use prost::bytes::Buf as _;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;
use tonic_types::{ErrorDetails, StatusExt as _};

const MALFORMED: &str = "REQUEST_MALFORMED";

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

impl<D: Decoder<Error = Status>> Decoder for StrictDecoder<D> {
    type Item = D::Item;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        self.0.decode(bytes).map_err(|_| {
            let why = "the bytes are not the protobuf message of this method";
            let mut details = ErrorDetails::with_bad_request_violation("message", why);
            details.set_error_info(MALFORMED, "remit", HashMap::new());
            let mut status = Status::with_error_details(Code::InvalidArgument, format!("message: {why}"), details);
            status.metadata_mut().insert("remit-reason", MetadataValue::from_static(MALFORMED));
            status
        })
    }

    fn buffer_settings(&self) -> tonic::codec::BufferSettings {
        self.0.buffer_settings()
    }
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
