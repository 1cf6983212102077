"""WebShop: shopping from an instruction over a catalogue of products. It equals the original and needs no Java."""
