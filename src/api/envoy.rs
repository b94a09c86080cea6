//! The generated wire types of `proto/envoy`: modules nested as its packages are, since the types name each other so.

/// Of the configuration's messages: headers.
pub mod config {
    /// `envoy.config.core`.
    pub mod core {
        /// `envoy.config.core.v3`.
        pub mod v3 {
            tonic::include_proto!("envoy.config.core.v3");
        }
    }
}

/// Of the services: authorization.
pub mod service {
    /// `envoy.service.auth`.
    pub mod auth {
        /// `envoy.service.auth.v3`.
        pub mod v3 {
            tonic::include_proto!("envoy.service.auth.v3");
        }
    }
}

/// `envoy.type`.
pub mod r#type {
    /// `envoy.type.v3`.
    pub mod v3 {
        tonic::include_proto!("envoy.r#type.v3");
    }
}
