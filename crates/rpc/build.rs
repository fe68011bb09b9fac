//! Compiles every `.proto` below `proto/`, in pure Rust: no protoc to install.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use protox::prost::Message;
use protox::prost_reflect::prost_types::{DescriptorProto, FileDescriptorSet};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new("proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let mut files = Vec::new();
    find_protos(root, &mut files)?;
    files.sort();

    let compiled = protox::compile(files, [root])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), without_comments(compiled.clone()).encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        // What a server does not offer yet answers Unimplemented, as clients expect.
        .generate_default_stubs(true)
        .include_file("packages.rs")
        .compile_fds(with_readable_names(compiled))?;
    Ok(())
}

fn find_protos(dir: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            find_protos(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            found.push(path);
        }
    }
    Ok(())
}

/// Reflection serves names and types; the comments would only fatten the binary.
fn without_comments(mut set: FileDescriptorSet) -> FileDescriptorSet {
    for file in &mut set.file {
        file.source_code_info = None;
    }
    set
}

/// Spares the Rust code fields called `peer_ur_ls`. Names do not travel, and
/// the descriptors that reflection serves keep etcd's spelling.
fn with_readable_names(mut set: FileDescriptorSet) -> FileDescriptorSet {
    fn rename(message: &mut DescriptorProto) {
        for field in &mut message.field {
            if let Some(name) = &mut field.name {
                *name = name.replace("URLs", "Urls");
            }
        }
        message.nested_type.iter_mut().for_each(rename);
    }
    set.file.iter_mut().flat_map(|file| &mut file.message_type).for_each(rename);
    set
}
