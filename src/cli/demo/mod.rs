//! `gatepost demo`: two versions of a sample function and a gatepost in front of them, with a file to edit.

mod file;
mod function;
