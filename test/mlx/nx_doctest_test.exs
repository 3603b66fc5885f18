defmodule Mlx.NxDoctestTest do
  @moduledoc """
  The examples in Nx's own documentation.
  """

  use ExUnit.Case, async: true

  setup do
    Nx.default_backend({Mlx.Backend, device: :cpu})
    :ok
  end

  # What these run is not there yet: sort, argsort, fft, indexed_put, and types below
  # 8 bits.
  @missing [argsort: 2, bit_size: 1, fft: 2, fft2: 2, ifft: 2, ifft2: 2, irfft: 2] ++
             [indexed_put: 4, make_diagonal: 2, median: 2, mode: 2, put_diagonal: 3] ++
             [rfft: 2, sort: 2, take_along_axis: 3, tensor: 2, top_k: 2]

  # These print more digits than processors agree on; they have cases of their own.
  @rounded for {name, _} <- Nx.Shared.unary_math_funs(), do: {name, 1}

  doctest Nx, except: @missing ++ @rounded
  doctest Nx.Random, only: [key: 1, split: 2, fold_in: 2, uniform: 4, randint: 4]
end
