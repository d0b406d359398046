// SPDX-License-Identifier: MIT OR Apache-2.0
//! Virtual clusters: an Ethernet switch with faults, QMP and the life of a virtual node.
