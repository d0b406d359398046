// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the header is made of, read from the Rust sources. They keep to a plain style, and what is
//! not understood is a panic that names it, not something left out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use syn::parse::{Parse, ParseStream};
use syn::{BinOp, Expr, Fields, Item, Lit, Meta, Type};

/// A constant with its value.
pub(crate) struct Constant {
    pub(crate) name: String,
    pub(crate) ty: String,
    pub(crate) value: u128,
    /// The digits as they are written, if the value is written as one number.
    pub(crate) literal: Option<String>,
    pub(crate) doc: Vec<String>,
}

/// The number of a call.
pub(crate) struct Number {
    pub(crate) name: String,
    pub(crate) nr: u128,
    /// The structure of its block, if it has one.
    pub(crate) block: Option<String>,
    pub(crate) reads: bool,
    pub(crate) writes: bool,
}

/// A structure and its fields, with their types.
pub(crate) struct Structure {
    pub(crate) name: String,
    pub(crate) align: Option<u128>,
    pub(crate) fields: Vec<(String, Type, Vec<String>)>,
    pub(crate) doc: Vec<String>,
}

/// A function and its parameters.
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) parameters: Vec<(String, Type)>,
    pub(crate) returns: Option<Type>,
    pub(crate) doc: Vec<String>,
}

/// Everything, in the order of the sources.
#[derive(Default)]
pub(crate) struct Source {
    pub(crate) constants: Vec<Constant>,
    pub(crate) numbers: Vec<Number>,
    pub(crate) structures: Vec<Structure>,
    pub(crate) functions: Vec<Function>,
    values: BTreeMap<String, u128>,
}

/// The folder `dvk`.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

impl Source {
    /// Reads the sources of this tree.
    pub(crate) fn read() -> Self {
        let mut source = Self::default();
        source.endpoints("abi/src/endpoint.rs");
        for path in ["limits", "message", "ioctl"] {
            source.file(&format!("abi/src/{path}.rs"));
        }
        source.file("user/src/protocol/mod.rs");
        source.file("user/c/src/ffi.rs");
        source
    }

    fn file(&mut self, path: &str) {
        for item in parse(path).items {
            match item {
                Item::Const(item) if is_public(&item.vis) => {
                    let (name, doc) = (item.ident.to_string(), doc(&item.attrs));
                    self.constant(name, &item.ty, &item.expr, doc);
                }
                Item::Struct(item) if is_public(&item.vis) => self.structure(item),
                Item::Fn(item) if item.sig.abi.is_some() => self.function(item),
                Item::Macro(item) if item.mac.path.is_ident("control_calls") => {
                    let calls: Calls = item.mac.parse_body().expect("calls of control");
                    self.calls(calls);
                }
                _ => {}
            }
        }
    }

    /// The named values of the type `Endpoint`, which the header has as integers.
    fn endpoints(&mut self, path: &str) {
        for item in parse(path).items {
            let Item::Impl(item) = item else { continue };
            for item in item.items {
                let syn::ImplItem::Const(item) = item else { continue };
                let Expr::Call(call) = &item.expr else { panic!("{} is no call", item.ident) };
                let name = format!("ENDPOINT_{}", item.ident);
                let ty: Type = syn::parse_quote!(u64);
                self.constant(name, &ty, &call.args[0], doc(&item.attrs));
            }
        }
    }

    fn constant(&mut self, name: String, ty: &Type, value: &Expr, doc: Vec<String>) {
        if let Some((block, direction, nr)) = as_number(value) {
            let (reads, writes) = (direction.contains(&"READ"), direction.contains(&"WRITE"));
            let nr = self.value(nr);
            self.numbers.push(Number { name, nr, block, reads, writes });
            return;
        }
        let literal = match value {
            Expr::Lit(lit) => match &lit.lit {
                Lit::Int(int) => Some(int.to_string().replace('_', "")),
                _ => None,
            },
            _ => None,
        };
        let value = self.value(value);
        self.values.insert(name.clone(), value);
        self.constants.push(Constant { name, ty: words(ty), value, literal, doc });
    }

    fn value(&self, expr: &Expr) -> u128 {
        match expr {
            Expr::Lit(lit) => match &lit.lit {
                Lit::Int(int) => int.base10_parse().expect("an integer"),
                _ => panic!("a constant that is no integer"),
            },
            Expr::Paren(paren) => self.value(&paren.expr),
            Expr::Path(path) => {
                let path: Vec<_> =
                    path.path.segments.iter().map(|part| part.ident.to_string()).collect();
                match path.join("::").as_str() {
                    "u32::MAX" => u32::MAX.into(),
                    name => *self.values.get(name).unwrap_or_else(|| panic!("what is {name}?")),
                }
            }
            Expr::Binary(binary) => {
                let (left, right) = (self.value(&binary.left), self.value(&binary.right));
                match binary.op {
                    BinOp::Shl(_) => left << right,
                    BinOp::BitOr(_) => left | right,
                    BinOp::Sub(_) => left - right,
                    _ => panic!("`{}` is not known here", words(expr)),
                }
            }
            _ => panic!("`{}` is not known here", words(expr)),
        }
    }

    /// The length of an array.
    pub(crate) fn length(&self, expr: &Expr) -> u128 {
        self.value(expr)
    }

    /// Size and alignment of a structure by the rules of C.
    pub(crate) fn layout(&self, name: &str) -> (u128, u128) {
        let structure = self.known(name);
        let (mut size, mut align) = (0u128, structure.align.unwrap_or(1));
        for (_, ty, _) in &structure.fields {
            let (field, field_align) = self.type_layout(ty);
            size = size.next_multiple_of(field_align) + field;
            align = align.max(field_align);
        }
        (size.next_multiple_of(align), align)
    }

    fn known(&self, name: &str) -> &Structure {
        let structure = self.structures.iter().find(|known| known.name == name);
        structure.unwrap_or_else(|| panic!("what is {name}?"))
    }

    fn type_layout(&self, ty: &Type) -> (u128, u128) {
        if let Type::Array(array) = ty {
            let (size, align) = self.type_layout(&array.elem);
            return (size * self.length(&array.len), align);
        }
        match words(ty).as_str() {
            "u8" => (1, 1),
            "u16" => (2, 2),
            "u32" => (4, 4),
            "u64" | "i64" => (8, 8),
            other => self.layout(other),
        }
    }

    fn structure(&mut self, item: syn::ItemStruct) {
        let mut align = None;
        let mut is_c = false;
        for attribute in item.attrs.iter().filter(|attribute| attribute.path().is_ident("repr")) {
            attribute
                .parse_nested_meta(|meta| {
                    is_c |= meta.path.is_ident("C");
                    if meta.path.is_ident("align") {
                        let content;
                        syn::parenthesized!(content in meta.input);
                        align = Some(content.parse::<syn::LitInt>()?.base10_parse()?);
                    }
                    Ok(())
                })
                .expect("a representation");
        }
        assert!(is_c, "{} is public and not repr(C)", item.ident);
        let Fields::Named(fields) = item.fields else { panic!("{} has no fields", item.ident) };
        let field = |field: syn::Field| {
            (field.ident.expect("a name").to_string(), field.ty, doc(&field.attrs))
        };
        let fields = fields.named.into_iter().map(field).collect();
        let (name, doc) = (item.ident.to_string(), doc(&item.attrs));
        self.structures.push(Structure { name, align, fields, doc });
    }

    fn function(&mut self, item: syn::ItemFn) {
        let parameter = |parameter| match parameter {
            syn::FnArg::Typed(typed) => (words(&typed.pat), *typed.ty),
            syn::FnArg::Receiver(_) => panic!("a method"),
        };
        let returns = match item.sig.output {
            syn::ReturnType::Type(_, ty) => Some(*ty),
            syn::ReturnType::Default => None,
        };
        self.functions.push(Function {
            name: item.sig.ident.to_string(),
            parameters: item.sig.inputs.into_iter().map(parameter).collect(),
            returns,
            doc: doc(&item.attrs),
        });
    }

    fn calls(&mut self, calls: Calls) {
        for CallItem { attrs, name, block, opcode } in calls.0 {
            let number = self.numbers.iter().find(|number| opcode == number.name.as_str());
            let number = number.unwrap_or_else(|| panic!("what is {opcode}?"));
            let pointer: Type = if number.reads {
                syn::parse_quote!(*mut #block)
            } else {
                syn::parse_quote!(*const #block)
            };
            let control = ("control".to_owned(), syn::parse_quote!(c_int));
            self.functions.push(Function {
                name: name.to_string(),
                parameters: vec![control, ("block".to_owned(), pointer)],
                returns: Some(syn::parse_quote!(c_int)),
                doc: doc(&attrs),
            });
        }
    }
}

fn parse(path: &str) -> syn::File {
    let path = folder().join(path);
    let text = std::fs::read_to_string(&path).expect("the source is there");
    syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// `number::<Block>(DIRECTION, nr)`.
fn as_number(expr: &Expr) -> Option<(Option<String>, Vec<&'static str>, &Expr)> {
    let Expr::Call(call) = expr else { return None };
    let Expr::Path(path) = &*call.func else { return None };
    let segment = path.path.segments.last().filter(|segment| segment.ident == "number")?;
    let syn::PathArguments::AngleBracketed(arguments) = &segment.arguments else { return None };
    let block = arguments.args.first().map(words).filter(|block| block != "()");
    let direction = words(&call.args[0]);
    let direction = ["READ", "WRITE"].into_iter().filter(|word| direction.contains(word)).collect();
    Some((block, direction, &call.args[1]))
}

/// The body of `control_calls!`.
struct Calls(Vec<CallItem>);

struct CallItem {
    attrs: Vec<syn::Attribute>,
    name: syn::Ident,
    block: Type,
    opcode: syn::Ident,
}

impl Parse for Calls {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut calls = Vec::new();
        while !input.is_empty() {
            let attrs = input.call(syn::Attribute::parse_outer)?;
            input.parse::<syn::Token![fn]>()?;
            let name = input.parse()?;
            let content;
            syn::parenthesized!(content in input);
            let block = content.parse()?;
            input.parse::<syn::Token![=]>()?;
            let opcode = input.parse()?;
            input.parse::<syn::Token![;]>()?;
            calls.push(CallItem { attrs, name, block, opcode });
        }
        Ok(Self(calls))
    }
}

fn is_public(visibility: &syn::Visibility) -> bool {
    matches!(visibility, syn::Visibility::Public(_))
}

/// The lines of a documentation comment.
fn doc(attributes: &[syn::Attribute]) -> Vec<String> {
    let line = |attribute: &syn::Attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            Expr::Lit(lit) => match &lit.lit {
                Lit::Str(text) => Some(text.value().trim().to_owned()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    };
    attributes.iter().filter_map(line).collect()
}

/// The tokens, without spaces where one type or name is meant.
fn words(tokens: &impl quote::ToTokens) -> String {
    tokens.to_token_stream().to_string().replace(' ', "")
}
