// SPDX-License-Identifier: MIT OR Apache-2.0
//! The disk server with clients and other replicas, without a kernel.

mod clients;
mod lab;
mod replicas;
mod services;
