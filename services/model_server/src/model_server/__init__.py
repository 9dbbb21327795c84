"""Model servers: real models on KServe's SDK (`cli`), and a light stub of the same protocols (`stub`)."""
