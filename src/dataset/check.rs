//! `sconce data check`: what is wrong with a folder of images.
