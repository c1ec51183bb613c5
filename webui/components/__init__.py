"""Controls as Gradio draws them."""
