defmodule Mlx.Memory do
  @moduledoc """
  What MLX holds for tensors, of all devices and processes together.

  The limit is that of `config :mlx, memory_limit:`, see `Mlx.Backend`.
  """

  @type stats :: %{
          active: non_neg_integer,
          peak: non_neg_integer,
          cache: non_neg_integer,
          limit: pos_integer
        }

  @doc """
  The bytes that tensors hold now (`:active`) and have held at most (`:peak`), those of
  freed ones that MLX keeps for the next (`:cache`), and how many there may be (`:limit`).

  Tensors that are not computed yet hold nothing.

  ## Examples

      iex> tensor = Mlx.eval(Nx.iota({1024}, type: :s32, backend: {Mlx.Backend, device: :cpu}))
      iex> stats = Mlx.Memory.stats()
      iex> stats.active >= Nx.byte_size(tensor) and stats.peak >= stats.active
      true

  """
  @spec stats() :: stats
  def stats, do: Mlx.Native.memory_stats()

  @doc """
  Lets the peak start from what is held now.

  ## Examples

      iex> Mlx.Memory.reset_peak()
      :ok

  """
  @spec reset_peak() :: :ok
  def reset_peak, do: Mlx.Native.memory_reset_peak()
end
