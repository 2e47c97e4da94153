"""Images: preprocessing, geometry, resizing, decoding, image sets, annotations and the data reader."""
