"""What a person sees in a terminal, a document or a picture."""
