"""Predictor: artifact selection, session pool, batching queue, frames from files and cameras, drawing."""
