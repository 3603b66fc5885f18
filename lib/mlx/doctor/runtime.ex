defmodule Mlx.Doctor.Runtime do
  @moduledoc false

  # The MLX that was prepared for the NIF, in `priv/runtime`.

  import Mlx.Doctor, only: [ok: 2, error: 3]

  @enforce_keys [:root, :library, :version, :variant]
  defstruct [:root, :library, :version, :variant]

  @pin Path.expand("../../../native/xtask/wheels/mlx-cpu.txt", __DIR__)
  @external_resource @pin
  [version] = Regex.run(~r/==([\d.]+)/, File.read!(@pin), capture: :all_but_first)
  @wanted version

  @again "run `cargo xtask mlx` in Mlx's folder, and `mix compile` or, as a dependency, `mix deps.compile mlx --force`"

  @doc """
  What is in the folder `runtime`, or why there is nothing.
  """
  def find(priv) do
    root = Path.join(priv, "runtime")

    cond do
      not match?({:ok, _}, File.lstat(root)) -> {:error, "#{root} is missing"}
      not File.exists?(root) -> {:error, "#{root} leads to #{target(root)}, which is gone"}
      library = library(root) -> read(root, library)
      true -> {:error, "there is no MLX in #{target(root)}"}
    end
  end

  defp target(root) do
    case File.read_link(root) do
      {:ok, target} -> target
      {:error, _} -> root
    end
  end

  defp library(root) do
    ["libmlx.so", "libmlx.dylib"]
    |> Enum.map(&Path.join([root, "mlx/lib", &1]))
    |> Enum.find(&File.exists?/1)
  end

  defp read(root, library) do
    case root |> Path.join("mlx_*.dist-info") |> Path.wildcard() do
      [package | _] ->
        [_, name, version] = Regex.run(~r/^mlx_(.+)-([^-]+)\.dist-info$/, Path.basename(package))
        variant = String.replace(name, "_", "")
        {:ok, %__MODULE__{root: root, library: library, version: version, variant: variant}}

      [] ->
        {:ok,
         %__MODULE__{root: root, library: library, version: header(root), variant: "MLX_DIR"}}
    end
  end

  defp header(root) do
    with {:ok, text} <- File.read(Path.join(root, "mlx/include/mlx/version.h")),
         numbers = for(part <- ~w(MAJOR MINOR PATCH), do: number(text, part)),
         true <- Enum.all?(numbers) do
      Enum.join(numbers, ".")
    else
      _ -> "unknown"
    end
  end

  defp number(text, part) do
    case Regex.run(~r/MLX_VERSION_#{part}\s+(\d+)/, text) do
      [_, number] -> number
      nil -> nil
    end
  end

  def check({:error, message}), do: error("MLX", message, @again)

  def check({:ok, %__MODULE__{version: @wanted} = runtime}) do
    from = if runtime.variant == "MLX_DIR", do: "installed", else: "variant #{runtime.variant}"
    ok("MLX", "#{@wanted}, #{from}, in #{target(runtime.root)}")
  end

  def check({:ok, %__MODULE__{version: version}}),
    do: error("MLX", "#{version}, but Mlx is built for #{@wanted}", @again)
end
