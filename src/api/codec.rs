//! Prost's codec, with one difference: bytes that are no message are the fault of whoever sent them, and told so.

use std::collections::HashMap;

use prost::Message;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;
use tonic_types::{ErrorDetails, StatusExt as _};

const MALFORMED: &str = "REQUEST_MALFORMED";

/// The codec of every generated service and client.
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
