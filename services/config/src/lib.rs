// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine configuration: one strict TOML schema.
