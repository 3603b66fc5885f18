defmodule Mlx.MixProject do
  use Mix.Project

  @version "0.1.0"
  @source_url "https://github.com/mlx-nx/mlx"

  # Packages that may be missing, and what these need besides.
  @axon [:axon, :polaris]
  @bumblebee [:bumblebee, :tokenizers, :castore, :rustler_precompiled, :safetensors, :unpickler] ++
               [:progress_bar, :decimal, :nx_image, :nx_signal, :unzip]

  def project do
    [
      app: :mlx,
      version: @version,
      elixir: "~> 1.18",
      description: "Nx on Apple's MLX: Apple GPUs, NVIDIA GPUs and plain CPUs",
      compilers: [:mlx_runtime] ++ Mix.compilers(),
      elixirc_paths: elixirc_paths(Mix.env()),
      start_permanent: Mix.env() == :prod,
      deps: deps(System.get_env("MLX_DEPS")),
      package: package(),
      docs: docs()
    ]
  end

  def application do
    [mod: {Mlx.Application, []}, extra_applications: [:logger]]
  end

  defp elixirc_paths(:test), do: ["lib", "test/support"]
  defp elixirc_paths(_), do: ["lib"]

  # Without Bumblebee: 0.7.0 asks Hex for Nx 0.12.
  defp deps(nil) do
    [
      {:nx, "~> 0.13.1"},
      {:telemetry, "~> 1.0"},
      {:rustler, "~> 0.38", runtime: false},
      {:stream_data, "~> 1.1", only: [:dev, :test]},
      {:axon, "~> 0.8", optional: true},
      {:ex_doc, "~> 0.34", only: :dev, runtime: false}
    ]
  end

  # Where the packages can't be downloaded, MLX_DEPS names a folder with the
  # source of each, those that the packages themselves need included. A folder without
  # Axon or Bumblebee does, too: their tests are left out then.
  defp deps(folder) do
    packages = [:nx, :complex, :telemetry, :rustler, :jason, :stream_data]
    optional = in_full(folder, @axon)
    tested = in_full(folder, @bumblebee)

    for(package <- packages, do: {package, in_folder(folder, package)}) ++
      for(package <- optional, do: {package, [optional: true] ++ in_folder(folder, package)}) ++
      for(package <- tested, do: {package, [only: :test] ++ in_folder(folder, package)})
  end

  defp in_full(folder, packages) do
    there? = Enum.all?(packages, &File.exists?(Path.join(folder, "#{&1}/mix.exs")))
    if there?, do: packages, else: []
  end

  defp in_folder(folder, package), do: [path: Path.join(folder, "#{package}"), override: true]

  defp package do
    [
      licenses: ["MIT"],
      links: %{"GitHub" => @source_url},
      files:
        ~w(lib native bench data examples guides livebooks Cargo.toml Cargo.lock mix.exs) ++
          ~w(README.md ARCHITECTURE.md CHANGELOG.md LICENSE)
    ]
  end

  defp docs do
    [
      main: "readme",
      source_url: @source_url,
      source_ref: "v#{@version}",
      # They are about what is hidden, too.
      skip_undefined_reference_warnings_on: ["ARCHITECTURE.md", "guides/troubleshooting.md"],
      extras:
        ["README.md" | in_order("guides", ".md", ~w(installation compiling devices_and_streams))] ++
          in_order("livebooks", ".livemd", ~w(quick_start training)) ++
          guides() ++
          ["ARCHITECTURE.md", {:"bench/README.md", filename: "benchmarks"}] ++
          ["CHANGELOG.md", "LICENSE"],
      groups_for_extras: [
        Guides: ~r"^guides/[^/]+$",
        Livebooks: ~r"^livebooks/",
        "Backend documentation": ~r"^guides/backend_documentation/"
      ],
      groups_for_modules: [
        Models: ~r"^Mlx.(Fast|Quantization|Weights|Generation|Axon|MixedPrecision)",
        Observation: [~r"^Mlx.Telemetry", ~r"^Mlx.Profile", ~r"^Mlx.Doctor"]
      ]
    ]
  end

  # All of a folder, those first that a reader had better begin with.
  defp in_order(folder, ending, first) do
    first = for name <- first, do: Path.join(folder, name <> ending)
    first ++ (Path.wildcard("#{folder}/*#{ending}") -- first)
  end

  # Under the names that Nx's convention gives them, the index first.
  defp guides do
    folder = "guides/backend_documentation"

    families =
      ~w(types creation elementwise reduction shape indexing window) ++
        ~w(convolution linalg sort fft random)

    # ExDoc knows sources by their names without folders, of which two must not be the same.
    memory =
      {:"#{folder}/tensors_and_memory.md", filename: "backend_documentation-memory"}

    [{:"#{folder}/index.md", filename: "backend_documentation"}, memory] ++
      for family <- families do
        {:"#{folder}/#{family}.md", filename: "backend_documentation-#{family}"}
      end
  end
end

defmodule Mix.Tasks.Compile.MlxRuntime do
  @moduledoc false
  use Mix.Task.Compiler

  # The crates compile against the MLX that this prepares, once.
  @impl true
  def run(_args) do
    if File.exists?("priv/runtime") and File.exists?(".cargo/config.toml") do
      {:noop, []}
    else
      Mix.shell().info("Preparing MLX (cargo run -p xtask -- mlx)")
      prepare()
    end
  end

  defp prepare do
    args = ~w(run --quiet --package xtask -- mlx)

    case System.cmd("cargo", args, into: IO.stream(), stderr_to_stdout: true) do
      {_, 0} -> {:ok, []}
      {_, _} -> Mix.raise("MLX could not be prepared; the lines above say why")
    end
  end
end

defmodule Mlx.MixProject.NoHex do
  @moduledoc false
  @behaviour Mix.SCM

  # Mix asks Hex about the packages of packages even when a path overrides each of
  # them. This stands in where Hex is not installed and never fetches anything.
  def accepts_options(_app, opts) do
    if opts[:path] || opts[:git] || opts[:in_umbrella], do: nil, else: opts ++ [dest: "deps"]
  end

  def fetchable?, do: false
  def format(_opts), do: "no Hex"
  def format_lock(_opts), do: nil
  def checked_out?(_opts), do: false
  def lock_status(_opts), do: :ok
  def equal?(left, right), do: left[:dest] == right[:dest]
  def managers(_opts), do: []
  def checkout(_opts), do: Mix.raise("Hex is not installed: run mix local.hex")
  def update(_opts), do: Mix.raise("Hex is not installed: run mix local.hex")
end

if System.get_env("MLX_DEPS") && !Code.ensure_loaded?(Hex) do
  Mix.SCM.append(Mlx.MixProject.NoHex)
end
