"""What all workers share: settings, container contract, store, model cache, control and progress."""
