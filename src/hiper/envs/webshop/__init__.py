"""WebShop: shopping from an instruction over a catalogue of products, equal to the original without its Java."""
