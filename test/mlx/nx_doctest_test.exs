defmodule Mlx.NxDoctestTest do
  @moduledoc """
  The examples in Nx's own documentation.
  """

  use ExUnit.Case, async: true

  setup do
    Nx.default_backend({Mlx.Backend, device: :cpu})
    :ok
  end

  # What these run is not there yet: pad, conv, reduce, windows, and types below 8 bits.
  @missing [bit_size: 1, conv: 3, pad: 3, pad_outer: 3, reduce: 4, reflect: 2, tensor: 2] ++
             [window_max: 3, window_mean: 3, window_min: 3, window_product: 3] ++
             [window_reduce: 5, window_scatter_max: 5, window_scatter_min: 5, window_sum: 3]

  # These print more digits than processors agree on; they have cases of their own.
  @rounded for {name, _} <- Nx.Shared.unary_math_funs(), do: {name, 1}

  doctest Nx, except: @missing ++ @rounded
  doctest Nx.Random, only: [key: 1, split: 2, fold_in: 2, uniform: 4, randint: 4]
end
