// SPDX-License-Identifier: MIT OR Apache-2.0
//! Types of the node's HTTP API, shared by dvsd and dvsctl.
