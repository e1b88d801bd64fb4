"""One trial: the masked model, training, evaluation and measurement. No method is named here."""
