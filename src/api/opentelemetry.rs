//! The generated wire types of `proto/opentelemetry`: modules nested as its packages are, since the types name each other so.

/// `opentelemetry.proto`.
pub mod proto {
    /// Values and names.
    pub mod common {
        /// `opentelemetry.proto.common.v1`.
        pub mod v1 {
            tonic::include_proto!("opentelemetry.proto.common.v1");
        }
    }

    /// What produced the records.
    pub mod resource {
        /// `opentelemetry.proto.resource.v1`.
        pub mod v1 {
            tonic::include_proto!("opentelemetry.proto.resource.v1");
        }
    }

    /// Spans.
    pub mod trace {
        /// `opentelemetry.proto.trace.v1`.
        pub mod v1 {
            tonic::include_proto!("opentelemetry.proto.trace.v1");
        }
    }

    /// Log records.
    pub mod logs {
        /// `opentelemetry.proto.logs.v1`.
        pub mod v1 {
            tonic::include_proto!("opentelemetry.proto.logs.v1");
        }
    }

    /// Where they are sent.
    pub mod collector {
        /// Spans.
        pub mod trace {
            /// `opentelemetry.proto.collector.trace.v1`.
            pub mod v1 {
                tonic::include_proto!("opentelemetry.proto.collector.trace.v1");
            }
        }

        /// Log records.
        pub mod logs {
            /// `opentelemetry.proto.collector.logs.v1`.
            pub mod v1 {
                tonic::include_proto!("opentelemetry.proto.collector.logs.v1");
            }
        }
    }
}
