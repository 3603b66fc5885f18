defmodule Mlx.Compiler.Fuse do
  @moduledoc false

  # MLX fuses for a CPU with the system's C++ compiler, which it starts with the C
  # function `system`.

  require Logger
  alias Mlx.Compiler.Options

  @ready {__MODULE__, :ready}

  @doc """
  The options without `:fuse` where there is no compiler.
  """
  def prepare(%Options{fuse: true, device: :cpu} = options), do: %{options | fuse: ready?()}
  def prepare(options), do: options

  defp ready? do
    with nil <- :persistent_term.get(@ready, nil) do
      ready = System.find_executable("g++") != nil
      if ready, do: heed_children(), else: warn()
      :persistent_term.put(@ready, ready)
      ready
    end
  end

  # The VM ignores the signal, and `system` can't wait for what it has started then.
  defp heed_children, do: :os.set_signal(:sigchld, :default)

  defp warn do
    Logger.warning(
      "Mlx.Compiler runs programs unfused, because `fuse: true` needs the C++ compiler g++ on a CPU"
    )
  end
end
