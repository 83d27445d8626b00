//! Boxes and masks of one picture, from Rust through edgekd's C header: detect BUNDLE PICTURE.ppm
//!
//!     edgekd capi build -o build/edgekd
//!     rustc -O --edition 2021 examples/detect.rs -L build/edgekd/lib -C link-arg=-Wl,-rpath,$PWD/build/edgekd/lib
//!     ./detect bundle/ picture.ppm
//!
//! Only the standard library. Structures and functions are those of `edgekd.h`, which is the manual; `bindgen` writes all
//! of them. Prints a line per object: class, confidence, box in pixels, area of the mask in pixels.

use std::ffi::{c_char, CStr, CString};
use std::{env, fs, process, ptr};

const ABI_VERSION: u32 = 1;
const FORMAT_RGB: i32 = 1;

#[repr(C)]
struct Image {
    data: *const u8,
    width_px: u32,
    height_px: u32,
    stride_bytes: usize,
    format: i32,
}

#[repr(C)]
#[derive(Clone, Default)]
struct Object {
    left_px: f32,
    top_px: f32,
    right_px: f32,
    bottom_px: f32,
    confidence: f32,
    predicted_iou: f32,
    class_id: i32,
    window: [i32; 4],
}

/// An `edgekd_chain`, of which only the library knows the inside.
#[repr(C)]
struct Handle {
    _inside: [u8; 0],
}

#[link(name = "edgekd")]
extern "C" {
    fn edgekd_abi_version() -> u32;
    fn edgekd_last_error() -> *const c_char;
    fn edgekd_chain_open(folder: *const c_char, options: *const u8, chain: *mut *mut Handle) -> i32;
    fn edgekd_chain_close(chain: *mut Handle);
    fn edgekd_chain_class_name(chain: *const Handle, class_id: i32) -> *const c_char;
    fn edgekd_chain_run(chain: *mut Handle, image: *const Image, options: *const u8) -> i32;
    fn edgekd_chain_get_objects(chain: *const Handle, objects: *mut Object, capacity: usize, n: *mut usize) -> i32;
    fn edgekd_mask_bytes(object: *const Object) -> usize;
    fn edgekd_chain_get_mask(chain: *const Handle, index: usize, mask: *mut u8, capacity: usize, n: *mut usize) -> i32;
}

/// Turn a status into a result; the sentence lives until the next failure of this thread, so it is copied.
fn check(status: i32) -> Result<(), String> {
    if status == 0 {
        return Ok(());
    }
    Err(unsafe { text(edgekd_last_error()) })
}

/// Copy a string that belongs to the library.
unsafe fn text(string: *const c_char) -> String {
    if string.is_null() {
        return String::new();
    }
    CStr::from_ptr(string).to_string_lossy().into_owned()
}

/// An open bundle. It has no `Send` and no `Sync`: a chain serves one thread, and a clone each further one.
struct Chain(*mut Handle);

impl Chain {
    fn open(folder: &str) -> Result<Chain, String> {
        if unsafe { edgekd_abi_version() } != ABI_VERSION {
            return Err(format!("libedgekd has another binary interface, expected version {ABI_VERSION}"));
        }
        let folder = CString::new(folder).map_err(|_| "the name of the bundle holds a zero byte".to_string())?;
        let mut handle = ptr::null_mut();
        check(unsafe { edgekd_chain_open(folder.as_ptr(), ptr::null(), &mut handle) })?;
        Ok(Chain(handle))
    }

    /// Find the objects of a picture of RGB bytes without padding, most confident first.
    fn run(&mut self, rgb: &[u8], width_px: u32, height_px: u32) -> Result<Vec<Object>, String> {
        let stride_bytes = width_px as usize * 3;
        assert_eq!(rgb.len(), stride_bytes * height_px as usize, "three bytes per pixel");
        let image = Image { data: rgb.as_ptr(), width_px, height_px, stride_bytes, format: FORMAT_RGB };
        check(unsafe { edgekd_chain_run(self.0, &image, ptr::null()) })?;
        let mut n_objects = 0;
        check(unsafe { edgekd_chain_get_objects(self.0, ptr::null_mut(), 0, &mut n_objects) })?;
        let mut objects = vec![Object::default(); n_objects];
        check(unsafe { edgekd_chain_get_objects(self.0, objects.as_mut_ptr(), n_objects, &mut n_objects) })?;
        Ok(objects)
    }

    fn class_name(&self, object: &Object) -> String {
        unsafe { text(edgekd_chain_class_name(self.0, object.class_id)) }
    }

    /// The mask of object `index` of the last run, cropped to its window: rows of bytes, 1 inside and 0 outside.
    fn mask(&self, index: usize, object: &Object) -> Result<Vec<u8>, String> {
        let mut mask = vec![0; unsafe { edgekd_mask_bytes(object) }];
        check(unsafe { edgekd_chain_get_mask(self.0, index, mask.as_mut_ptr(), mask.len(), ptr::null_mut()) })?;
        Ok(mask)
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        unsafe { edgekd_chain_close(self.0) }
    }
}

/// Read a binary PPM of 8 bits per channel: its width, its height and its RGB bytes.
fn read_ppm(path: &str) -> Result<(u32, u32, Vec<u8>), String> {
    let bytes = fs::read(path).map_err(|error| format!("{path} cannot be read: {error}"))?;
    let refused = || format!("{path} cannot be read, expected a binary PPM of 8 bits per channel");
    let (mut at, mut words) = (0, Vec::new());
    while words.len() < 4 {
        let length = bytes[at..].iter().position(|byte| byte.is_ascii_whitespace()).ok_or_else(refused)?;
        words.push(String::from_utf8_lossy(&bytes[at..at + length]).into_owned());
        at += length + 1;
    }
    let (width_px, height_px) = (words[1].parse::<u32>(), words[2].parse::<u32>());
    match (words[0].as_str(), width_px, height_px, words[3].as_str()) {
        ("P6", Ok(width_px), Ok(height_px), "255")
            if u64::from(width_px) * u64::from(height_px) * 3 == (bytes.len() - at) as u64 =>
        {
            Ok((width_px, height_px, bytes[at..].to_vec()))
        }
        _ => Err(refused()),
    }
}

fn show(bundle: &str, picture: &str) -> Result<(), String> {
    let (width_px, height_px, rgb) = read_ppm(picture)?;
    let mut chain = Chain::open(bundle)?;
    for (index, object) in chain.run(&rgb, width_px, height_px)?.iter().enumerate() {
        let area_px = chain.mask(index, object)?.iter().filter(|inside| **inside == 1).count();
        let Object { left_px, top_px, right_px, bottom_px, confidence, .. } = object;
        let name = chain.class_name(object);
        println!("{name} {confidence:.4} box {left_px:.2} {top_px:.2} {right_px:.2} {bottom_px:.2} mask {area_px} px");
    }
    Ok(())
}

fn main() {
    let words: Vec<String> = env::args().collect();
    if words.len() != 3 {
        eprintln!("usage: {} BUNDLE PICTURE.ppm", words[0]);
        process::exit(2);
    }
    if let Err(sentence) = show(&words[1], &words[2]) {
        eprintln!("{sentence}");
        process::exit(1);
    }
}
