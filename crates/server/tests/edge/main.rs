//! The edge of a server, where clients and operators meet it: configuration, gRPC services, HTTP endpoints.
//! The replica behind it is a fake; whether a real one keeps its word is tested elsewhere.

mod admin;
mod api;
mod common;
mod config;
mod frames;
mod http;
