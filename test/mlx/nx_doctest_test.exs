defmodule Mlx.NxDoctestTest do
  @moduledoc """
  The examples in Nx's own documentation.
  """

  use ExUnit.Case, async: true

  setup do
    Nx.default_backend({Mlx.Backend, device: :cpu})
    :ok
  end

  # What these run is not there yet: types below 8 bits.
  @missing []

  # These print more digits than processors agree on; they have cases of their own.
  @rounded for {name, _} <- Nx.Shared.unary_math_funs(), do: {name, 1}

  doctest Nx, except: @missing ++ @rounded
  # Of erf_inv the last digit.
  doctest Nx.Random, except: [normal: 4, multivariate_normal: 4]
end
