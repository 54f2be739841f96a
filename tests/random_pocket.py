"""A pocket model of two blocks with random weights, as a folder in Hugging Face format."""

from pathlib import Path


def export_random(folder: Path, *, d_model: int = 32) -> Path:
    """Writes it; needs the extract extra."""
    from extract.pocket_export import export
    from extract.pocket_tokenizer import train_tokenizer
    from jelicit.pocket.model import PocketConfig, llama_config_dict, to_llama_state_dict
    from jelicit.pocket.train import OptimiserConfig, init_state
    from jelicit.pocket.world import tokenizer_texts

    tokenizer = train_tokenizer(tokenizer_texts("small", 300), vocab_size=600)
    config = PocketConfig(
        vocab_size=600, d_model=d_model, n_layers=2, n_heads=1, d_ff=32, max_positions=512
    )
    weights = to_llama_state_dict(init_state(config, OptimiserConfig(), 0))
    text = tokenizer.to_str()
    export(weights, llama_config_dict(config), text, folder, trained_length=512)
    return folder
