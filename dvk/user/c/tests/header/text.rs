// SPDX-License-Identifier: MIT OR Apache-2.0
//! The header as C.

use crate::source::{Constant, Function, Number, Source, Structure};
use std::fmt::Write;
use syn::Type;

const HEAD: &str = "\
/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * The DVK for C programs: message passing between the processes of a Distributed Container,
 * wherever they run. docs/dvk-reference.md says what the calls mean. All functions that return int
 * return -1 and set errno if they fail; the reference lists what each errno means.
 *
 * Generated from dvk/abi and dvk/user/c/src/ffi.rs by UPDATE_HEADER=1 cargo test -p dvk-c.
 */
#ifndef DVK_H
#define DVK_H

#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>

#ifdef __cplusplus
#define DVK_SIZE(type, bytes) static_assert(sizeof(type) == (bytes), \"size of \" #type)
extern \"C\" {
#else
#define DVK_SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), \"size of \" #type)
#endif
";

const TAIL: &str = "
#undef DVK_SIZE

#ifdef __cplusplus
}
#endif

#endif
";

/// The name of a constant.
pub(crate) fn constant_name(constant: &Constant) -> String {
    format!("DVK_{}", constant.name)
}

/// The name of the number of a call.
pub(crate) fn number_name(number: &Number) -> String {
    format!("DVK_IOC_{}", number.name)
}

/// The name of a structure, with its keyword.
pub(crate) fn structure_name(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    format!("struct dvk{snake}")
}

/// The whole header.
pub(crate) fn header(source: &Source) -> String {
    let mut text = HEAD.to_owned();
    for constant in &source.constants {
        comment(&mut text, "", &constant.doc, source);
        let value = constant_value(constant);
        writeln!(text, "#define {} {value}", constant_name(constant)).expect("a string grows");
    }
    for structure in &source.structures {
        put_structure(&mut text, structure, source);
    }
    text.push('\n');
    for number in &source.numbers {
        let name = number_name(number);
        let (nr, block) = (number.nr, number.block.as_deref().map(structure_name));
        let macro_name = match (number.reads, number.writes) {
            (false, false) => "_IO",
            (true, false) => "_IOR",
            (false, true) => "_IOW",
            (true, true) => "_IOWR",
        };
        let block = block.map_or_else(String::new, |block| format!(", {block}"));
        writeln!(text, "#define {name} {macro_name}(DVK_IOCTL_TYPE, {nr:#04x}{block})")
            .expect("a string grows");
    }
    for function in &source.functions {
        put_function(&mut text, function, source);
    }
    text + TAIL
}

fn constant_value(constant: &Constant) -> String {
    let digits = constant.literal.clone().unwrap_or_else(|| format!("{:#x}", constant.value));
    match constant.ty.as_str() {
        "u64" => format!("UINT64_C({digits})"),
        "u8" | "u32" => format!("{digits}u"),
        "usize" => digits,
        other => panic!("what is {other} in C?"),
    }
}

fn put_structure(text: &mut String, structure: &Structure, source: &Source) {
    comment(text, "", &structure.doc, source);
    let name = structure_name(&structure.name);
    writeln!(text, "{name} {{").expect("a string grows");
    for (field, ty, doc) in &structure.fields {
        comment(text, "\t", doc, source);
        writeln!(text, "\t{};", declaration(ty, field, source)).expect("a string grows");
    }
    let align = structure
        .align
        .map_or_else(String::new, |align| format!(" __attribute__((aligned({align})))"));
    let bytes = source.layout(&structure.name).0;
    writeln!(text, "}}{align};\nDVK_SIZE({name}, {bytes});").expect("a string grows");
}

fn put_function(text: &mut String, function: &Function, source: &Source) {
    comment(text, "", &function.doc, source);
    let parameters: Vec<_> =
        function.parameters.iter().map(|(name, ty)| declaration(ty, name, source)).collect();
    let returns = function.returns.as_ref().expect("every function returns something");
    let head = declaration(returns, &function.name, source);
    let line = format!("{head}({});", parameters.join(", "));
    if line.len() <= 100 {
        writeln!(text, "{line}").expect("a string grows");
    } else {
        writeln!(text, "{head}(\n\t{});", parameters.join(",\n\t")).expect("a string grows");
    }
}

/// `name` declared with the C type that `ty` is.
fn declaration(ty: &Type, name: &str, source: &Source) -> String {
    match ty {
        Type::Array(array) => {
            let length = source.length(&array.len);
            format!("{}[{length}]", declaration(&array.elem, name, source))
        }
        Type::Ptr(pointer) => {
            let constant = if pointer.const_token.is_some() { "const " } else { "" };
            format!("{constant}{}", declaration(&pointer.elem, &format!("*{name}"), source))
        }
        Type::Path(path) => {
            let last = path.path.segments.last().expect("a path has a name").ident.to_string();
            let c = match last.as_str() {
                "u8" => "uint8_t".to_owned(),
                "u16" => "uint16_t".to_owned(),
                "u32" => "uint32_t".to_owned(),
                "u64" => "uint64_t".to_owned(),
                "i64" => "int64_t".to_owned(),
                "usize" => "size_t".to_owned(),
                "c_int" => "int".to_owned(),
                "c_char" => "char".to_owned(),
                "c_void" => "void".to_owned(),
                other if source.structures.iter().any(|known| known.name == other) => {
                    structure_name(other)
                }
                other => panic!("what is {other} in C?"),
            };
            format!("{c} {name}")
        }
        _ => panic!("the type of {name} is not known in C"),
    }
}

/// A comment of C, with the names that the header has.
fn comment(text: &mut String, indent: &str, doc: &[String], source: &Source) {
    if indent.is_empty() {
        text.push('\n');
    }
    let doc = doc.join("\n");
    let doc = in_c(doc.trim(), source);
    let mut lines = doc.lines();
    let first = lines.next().unwrap_or_else(|| panic!("something is not documented"));
    write!(text, "{indent}/* {first}").expect("a string grows");
    for line in lines {
        let line = format!("{indent} * {line}");
        write!(text, "\n{}", line.trim_end()).expect("a string grows");
    }
    text.push_str(" */\n");
}

/// Links to Rust items become the names that these have in C.
fn in_c(doc: &str, source: &Source) -> String {
    let mut out = String::new();
    let mut rest = doc;
    while let Some(start) = rest.find("[`") {
        out.push_str(&rest[..start]);
        let Some(end) = rest[start..].find("`]") else { break };
        out.push_str(&name_in_c(&rest[start + 2..start + end], source));
        rest = &rest[start + end + 2..];
        if rest.starts_with('(') {
            rest = rest.find(')').map_or("", |end| &rest[end + 1..]);
        }
    }
    out + rest
}

fn name_in_c(name: &str, source: &Source) -> String {
    if let Some(constant) = name
        .strip_prefix("Endpoint::")
        .map(|name| format!("ENDPOINT_{name}"))
        .into_iter()
        .chain([name.to_owned()])
        .find_map(|name| source.constants.iter().find(|known| known.name == name))
    {
        return constant_name(constant);
    }
    if source.numbers.iter().any(|known| known.name == name) {
        return format!("dvk_{}", name.to_lowercase());
    }
    if let Some((structure, field)) = name.split_once("::") {
        if source.structures.iter().any(|known| known.name == structure) {
            return format!("{}.{field}", structure_name(structure));
        }
    }
    if source.structures.iter().any(|known| known.name == name) {
        return structure_name(name);
    }
    name.to_owned()
}
