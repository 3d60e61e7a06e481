//! The store on disk with real files: what a kill leaves, what damage costs, what is given back.

mod common;
mod damage;
mod files;
mod kill;
