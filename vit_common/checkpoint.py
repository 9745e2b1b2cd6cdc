def load_checkpoint(*a, **k): raise NotImplementedError
def save_checkpoint(*a, **k): raise NotImplementedError
