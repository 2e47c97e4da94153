"""Bundles as they are read: manifest, storage, signature, artifact sizes."""
