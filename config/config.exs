import Config

if config_env() == :test do
  # Doctests compare what is printed.
  config :mlx, :add_backend_on_inspect, false
end

# The tests have tokens without the NIF of Tokenizers, which would take minutes to build.
if config_env() == :test and File.dir?(Path.join(System.get_env("MLX_DEPS", ""), "tokenizers")) do
  config :tokenizers, Tokenizers.Native, skip_compilation?: true
end
