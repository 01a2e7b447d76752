"""What a model is trained to do: records in, labelled tokens out."""
