[
  import_deps: [:nx, :stream_data],
  inputs: ["{mix,.formatter}.exs", "{bench,config,examples,lib,test}/**/*.{ex,exs}"]
]
